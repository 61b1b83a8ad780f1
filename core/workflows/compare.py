"""`vconv compare`: judge and time artifacts side by side."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from vconv.arguments import checked_arguments
from vconv.artifact.artifact import Artifact
from vconv.artifact.staging import scratch_folder
from vconv.convert.sources.table import DEFAULT_HUB
from vconv.errors import InputError
from vconv.precisions import AUTO
from vconv.runtime.devices.base import Settings
from vconv.runtime.inputs.images import require_seed
from vconv.surroundings import own_surroundings
from vconv.types import Say, Status, silent, weights_named
from vconv.validators import validation
from vconv.validators.accuracy.limits import open_limits
from vconv.validators.latency import ranking
from vconv.validators.report import comparison, saving
from vconv.validators.report import log as textlog
from vconv.validators.report.comparison import ArtifactCheck, Comparison
from vconv.validators.report.document import MachineLoad
from vconv.workflows import originals
from vconv.workflows.checks import check_artifact
from vconv.workflows.run_plan import RunPlan, timing_plan


@checked_arguments
@own_surroundings()
def compare(
    paths: Sequence[str | Path],
    weights: str | Path | Sequence[str | Path] | None = None,
    *,
    device: str = "cpu",
    hf32: Sequence[str] | None = None,
    profile: str | None = None,
    fusions: str | None = None,
    within: str | Path = "strict",
    engines: Sequence[str] | None = None,
    precision: Sequence[str] = (AUTO,),
    capture: bool = False,
    quick: bool = False,
    full: bool = False,
    budget: float | None = None,
    seed: int = 0,
    hub: str = DEFAULT_HUB,
    offline: bool = False,
    reports: str | Path | None = None,
    say: Say = silent,
) -> Comparison:
    """Judge and time the variants of several artifacts side by side, in one run.

    Args:
        paths: the artifacts.
        weights: where the originals' weights are: one source for every artifact, in the order of ``paths``;
            or a single one, for every artifact whose manifest does not say where its original is. By
            default, where the manifests say.
        device: see :func:`vconv.validate`, and likewise the other arguments.
        hf32: see :func:`vconv.validate`.
        profile: see :func:`vconv.validate`.
        fusions: see :func:`vconv.validate`.
        within: see :func:`vconv.validate`.
        engines: see :func:`vconv.validate`.
        precision: see :func:`vconv.validate`.
        capture: see :func:`vconv.validate`.
        quick: see :func:`vconv.validate`.
        full: see :func:`vconv.validate`.
        budget: see :func:`vconv.validate`.
        seed: see :func:`vconv.validate`.
        hub: see :func:`vconv.validate`.
        offline: see :func:`vconv.validate`.
        reports: a folder for the report and what belongs to it; by default ``reports/`` of the artifact. With
            it, which must be outside, nothing is written into the artifact.
        say: receives progress lines.

    Returns:
        The report: ``rows``, one per variant and batch; the ``checks`` that did not pass; ``status``,
        ``passed``, ``machine``, ``ranking``; and ``winner``, the fastest variant that passed. If ``winner``
        is None, ``winner_reason`` gives the reason.

    Raises:
        VconvError: an error that the user can fix.
    """
    log = textlog.Log(say)
    plan = timing_plan(quick, full, budget)
    trial = RunPlan.on(device, Settings.of(hf32, profile, fusions), engines, precision, capture, log.say)
    limits = open_limits(within)
    require_seed(seed)
    folders = [Path(path) for path in paths]
    _refuse_repeated(folders)
    artifacts = [Artifact.open(folder) for folder in folders]
    given = _sources(artifacts, [weights] if isinstance(weights, str | Path) else list(weights or ()))
    for artifact in artifacts:
        limits.require_use(str(artifact), artifact.manifest.outputs)
        artifact.require_weights()
    saving.probe(*folders, elsewhere=reports)
    with contextlib.ExitStack() as scratches:
        found = []
        for artifact, where in zip(artifacts, given, strict=True):
            log.say(f"examining {artifact}")
            scratch = scratches.enter_context(scratch_folder(log.say))
            original = partial(originals.live_source, artifact, where, hub, offline, scratch, log.say)
            refer = partial(originals.reference, artifact, photographs=(), seed=seed, say=log.say)
            found.append(check_artifact(artifact, original, refer, log.say))
        candidates = [candidate for one in found for candidate in trial.candidates(one)]
        run = validation.run(candidates, limits, plan, log.say)
    rows = run.rows
    ranked = ranking.rank(rows, run.machine)
    winner, winner_reason = ranking.winner(rows, ranked, [place.name for place in trial.devices])
    statuses = [
        saving.whole([row for row in rows if row.artifact == str(one.artifact)], one.checks) for one in found
    ]
    status = next((bad for bad in (Status.FAILED, Status.INCOMPLETE) if bad in statuses), Status.PASSED)
    named = {
        str(one.artifact): weights_named(
            originals.weights_used(one.artifact, where), one.artifact.manifest.source.synthetic
        )
        for one, where in zip(found, given, strict=True)
    }
    result = Comparison(
        time=saving.now(),
        host=platform.node(),
        status=status,
        passed=status is Status.PASSED,
        limits=saving.limits_applied(limits, rows),
        **trial.described(),
        weights=named,
        rows=comparison.rows(rows, named),
        references={str(one.artifact): one.reference_is for one in found},
        statuses={str(one.artifact): status for one, status in zip(found, statuses, strict=True)},
        checks=tuple(
            ArtifactCheck(artifact=str(one.artifact), **asdict(check))
            for one in found
            for check in one.checks
            if check.status is not Status.PASSED
        ),
        machine=MachineLoad.model_validate(run.machine),
        ranking=ranked,
        winner=winner,
        winner_reason=winner_reason,
    )
    for folder in folders if reports is None else folders[:1]:
        saving.save(folder, result, "compare", log.render_comparison(result), elsewhere=reports)
    return result


def _sources(artifacts: Sequence[Artifact], weights: Sequence[str | Path]) -> list[str | Path | None]:
    """Return the given source of each artifact's original; None if its manifest is to say."""
    if not weights:
        return [None] * len(artifacts)
    if len(weights) == len(artifacts):
        return list(weights)
    if len(weights) > 1:
        raise InputError(
            "--weights does not fit the artifacts",
            got=f"{len(weights)} sources for {len(artifacts)} artifacts",
            expected="one for each, in the same order, or one for all that came from a folder or file",
            fix="repeat --weights once for each artifact",
        )
    origins = [artifact.manifest.source for artifact in artifacts]
    return [None if origin.synthetic or origin.revision else weights[0] for origin in origins]


def _refuse_repeated(folders: Sequence[Path]) -> None:
    places = [folder.resolve() for folder in folders]
    twice = [str(folder) for folder, place in zip(folders, places, strict=True) if places.count(place) > 1]
    if twice or not folders:
        raise InputError(
            "cannot compare these",
            got=f"{' and '.join(twice)}, which is one artifact" if twice else "no artifact",
            expected="one artifact or more, each once",
            fix="name each path once",
        )
