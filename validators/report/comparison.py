"""The report of a comparison: one table over variants, engines, devices and artifacts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from vconv.types import Status
from vconv.validators.accuracy.metrics import METRICS
from vconv.validators.report.document import CheckRow, LimitsUsed, MachineLoad, Ranking, Setting, Winner
from vconv.validators.report.model import SCHEMA_VERSION, Document, Figure, FrozenMapping
from vconv.validators.report.rows import OutputRow, VariantRow, VerdictRow


class ComparisonRow(VerdictRow):
    """One variant at one batch, with the worst of its outputs; no figures where it was not timed."""

    weights: str
    batch: int | None
    runs: int | None
    p50_ms: Figure
    p50_ms_interval: tuple[float, float] | None
    mean_ms: Figure
    images_per_second: Figure
    warnings: tuple[str, ...] | None
    samples_ms: tuple[float, ...] | None
    cosine: Figure
    vector_relative_error: Figure
    passed: bool


class ArtifactCheck(CheckRow):
    """A check of one of the artifacts that did not pass."""

    artifact: str


class Comparison(Document):
    """The report of a comparison, as its JSON file has it.

    ``weights``, ``references`` and ``statuses`` are by artifact. ``winner`` is None where there is none, and
    ``winner_reason`` says why.
    """

    schema_version: Literal[2] = SCHEMA_VERSION
    time: str
    host: str
    status: Status
    passed: bool
    limits: LimitsUsed
    devices: FrozenMapping[str]
    device_settings: FrozenMapping[FrozenMapping[Setting]]
    environment: FrozenMapping[str | int]
    weights: FrozenMapping[str]
    rows: tuple[ComparisonRow, ...]
    references: FrozenMapping[str]
    statuses: FrozenMapping[Status]
    checks: tuple[ArtifactCheck, ...]
    machine: MachineLoad
    ranking: Ranking
    winner: Winner | None
    winner_reason: str | None

    @property
    def simulated(self) -> bool:
        """Whether any device is an imitation."""
        return any(row.simulated for row in self.rows)


_TIMED = (
    *("batch", "runs", "p50_ms", "p50_ms_interval", "mean_ms", "images_per_second", "warnings", "samples_ms"),
)


def rows(variants: Iterable[VariantRow], weights: Mapping[str, str]) -> tuple[ComparisonRow, ...]:
    """Flatten a report's variants: one row a variant and batch, with the worst of its outputs.

    Args:
        variants: as :func:`vconv.validators.validation.run` returns them.
        weights: by artifact, what to call its weights.
    """
    found = []
    for variant in variants:
        for timing in variant.latency or (None,):
            timed: dict[str, Any] = {key: getattr(timing, key, None) for key in _TIMED}
            row = ComparisonRow(
                artifact=variant.artifact,
                variant=variant.variant,
                engine=variant.engine,
                device=variant.device,
                simulated=variant.simulated,
                weights=weights[variant.artifact],
                cosine=_worst("cosine", list(variant.outputs.values())),
                vector_relative_error=_worst("vector_relative_error", list(variant.outputs.values())),
                status=variant.status,
                passed=variant.passed,
                reason=variant.reason,
                timing_refused=variant.timing_refused,
                **timed,
            )
            found.append(row)
    return tuple(found)


def _worst(name: str, outputs: Sequence[OutputRow]) -> float | None:
    """Return the worst of a metric; None where there is none, and where one is infinite or NaN."""
    values = [output.metrics[name] for output in outputs if name in output.metrics]
    numbers = [value for value in values if value is not None]
    return METRICS[name].worst(numbers) if values and len(numbers) == len(values) else None
