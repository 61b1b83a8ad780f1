"""The report of a comparison: one table over variants, engines, devices and artifacts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from vconv.types import Status
from vconv.validators.accuracy.metrics import METRICS
from vconv.validators.report.document import (
    CheckRow,
    DiagnosisRow,
    GraphRow,
    LimitsUsed,
    MachineLoad,
    Ranking,
    Setting,
    Winner,
)
from vconv.validators.report.model import SCHEMA_VERSION, Document, Figure, FrozenMapping, Moment, ReportPart
from vconv.validators.report.rows import OutputRow, VariantRow, VerdictRow


class ComparisonRow(VerdictRow):
    """One variant at one batch, with its worst output; the latency fields are None if it was not timed."""

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
    """A check that one of the artifacts did not pass."""

    artifact: str


class ExportRow(ReportPart):
    """What an exporter made of a model, if several are compared.

    ``reason`` says why there is no graph, or why it could not be judged. ``seconds`` and ``peak_rss_bytes``
    are those of its process, with all that it imports; the memory is 0 if the process crashed. ``npu_lacks``
    are operators that CANN does not list; ``fusions`` counts the places in which a pass of CANN's compiler
    would change a result.
    """

    exporter: str
    exported: bool
    reason: str
    seconds: float
    peak_rss_bytes: int
    nbytes: int | None
    nodes: int | None
    opset: int | None
    npu_lacks: tuple[str, ...]
    fusions: FrozenMapping[int]


class Comparison(Document):
    """The report of a comparison, with the fields of its JSON file.

    ``weights``, ``references`` and ``statuses`` have one entry per artifact, and one per graph of another
    exporter. ``graphs`` describes these graphs, and ``left_out`` says of others in a folder why they are not
    judged. If exporters are compared, ``exports`` has what each made, and ``diagnosis`` the causes of
    failures. ``winner`` is None if no variant won; ``winner_reason`` then gives the reason.
    """

    schema_version: Literal[2] = SCHEMA_VERSION
    time: Moment
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
    graphs: tuple[GraphRow, ...] = ()
    left_out: tuple[CheckRow, ...] = ()
    exports: tuple[ExportRow, ...] = ()
    diagnosis: tuple[DiagnosisRow, ...] = ()
    machine: MachineLoad
    ranking: Ranking
    winner: Winner | None
    winner_reason: str | None

    @property
    def simulated(self) -> bool:
        """Whether any device is simulated."""
        return any(row.device_simulated for row in self.rows)


_TIMED = (
    *("batch", "runs", "p50_ms", "p50_ms_interval", "mean_ms", "images_per_second", "warnings", "samples_ms"),
)


def rows(variants: Iterable[VariantRow], weights: Mapping[str, str]) -> tuple[ComparisonRow, ...]:
    """Flatten a report's variants: one row per variant and batch, with the worst output of the variant.

    Args:
        variants: as :func:`vconv.validators.validation.run` returns them.
        weights: by artifact, the label of its weights.
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
                cosine=worst_of("cosine", list(variant.outputs.values())),
                vector_relative_error=worst_of("vector_relative_error", list(variant.outputs.values())),
                status=variant.status,
                passed=variant.passed,
                reason=variant.reason,
                timing_refused=variant.timing_refused,
                **timed,
            )
            found.append(row)
    return tuple(found)


def worst_of(name: str, outputs: Sequence[OutputRow]) -> float | None:
    """Return the worst value of a metric over outputs; None without a value, or if one is infinite or NaN."""
    values = [output.metrics[name] for output in outputs if name in output.metrics]
    numbers = [value for value in values if value is not None]
    return METRICS[name].worst(numbers) if values and len(numbers) == len(values) else None
