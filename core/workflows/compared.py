"""What a comparison compares, and its report."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vconv.types import Check, Status, weights_named
from vconv.validators.accuracy.limits import Limits
from vconv.validators.latency import ranking
from vconv.validators.report import comparison, saving
from vconv.validators.report.comparison import ArtifactCheck, Comparison
from vconv.validators.report.document import MachineLoad
from vconv.validators.report.rows import VariantRow
from vconv.validators.validation import Candidate, RunResult
from vconv.workflows import originals
from vconv.workflows.checks import CheckedArtifact
from vconv.workflows.foreign import ForeignGraph
from vconv.workflows.run_plan import RunPlan


@dataclass(frozen=True)
class Compared:
    """An artifact, a graph of another exporter, or an original, that is compared.

    Args:
        label: its path, or another name for it.
        weights: the label of its weights.
        reference: the origin of its reference.
        checks: what was checked besides its outputs.
        candidates: its variants.
        judged: whether it is judged, and not only timed.
        loads: whether it is an artifact, which `vconv.load` opens.
    """

    label: str
    weights: str
    reference: str
    checks: tuple[Check, ...]
    candidates: list[Candidate]
    judged: bool = True
    loads: bool = False

    @classmethod
    def artifact(
        cls, found: CheckedArtifact, source: str | Path | None, candidates: list[Candidate]
    ) -> Compared:
        """Return an artifact; ``source`` is where its original's weights are, if that was given."""
        used = originals.weights_used(found.artifact, source)
        label = weights_named(used, found.artifact.manifest.source.synthetic)
        return cls(str(found.artifact), label, found.reference_is, found.checks, candidates, loads=True)

    @classmethod
    def graph(cls, found: ForeignGraph, label: str, weights: str, candidates: list[Candidate]) -> Compared:
        """Return a graph of another exporter."""
        return cls(label, weights, found.judge.reference.source, found.checks, candidates)


def statuses_of(compared: Sequence[Compared], rows: Sequence[VariantRow]) -> dict[str, Status]:
    """Return the status of each, by its label; one that is not judged is skipped."""
    return {
        one.label: saving.whole([row for row in rows if row.artifact == one.label], one.checks)
        if one.judged
        else Status.SKIPPED
        for one in compared
    }


def report_of(
    compared: Sequence[Compared],
    run: RunResult,
    trial: RunPlan,
    limits: Limits,
    statuses: Mapping[str, Status],
    status: Status,
    **further: Any,
) -> Comparison:
    """Build the report of a comparison.

    Args:
        compared: what is compared.
        run: the results of its variants.
        trial: the devices and engines.
        limits: the limits.
        statuses: the status of each, by its label.
        status: the status of the whole.
        further: further fields of the report.
    """
    ranked = ranking.rank(run.rows, run.machine)
    winner, winner_reason = ranking.winner(run.rows, ranked, [place.name for place in trial.devices])
    if winner and any(one.loads for one in compared if one.label == winner.artifact):
        winner = ranking.loadable(winner, trial.devices)
    named = {one.label: one.weights for one in compared}
    return Comparison(
        time=saving.now(),
        host=platform.node(),
        status=status,
        passed=status is Status.PASSED,
        limits=saving.limits_applied(limits, run.rows),
        **trial.described(),
        weights=named,
        rows=comparison.rows(run.rows, named),
        references={one.label: one.reference for one in compared},
        statuses=dict(statuses),
        checks=tuple(
            ArtifactCheck(artifact=one.label, **asdict(check))
            for one in compared
            for check in one.checks
            if check.status is not Status.PASSED
        ),
        machine=MachineLoad.model_validate(run.machine),
        ranking=ranked,
        winner=winner,
        winner_reason=winner_reason,
        **further,
    )
