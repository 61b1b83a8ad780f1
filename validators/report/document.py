"""The report of a validation, from its first row to JSON, log, page and card: one frozen document."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AliasChoices, Field

from vconv.types import Status
from vconv.validators.report.dataset_document import DatasetReport
from vconv.validators.report.model import SCHEMA_VERSION, Document, Figure, FrozenMapping, Part
from vconv.validators.report.rows import LimitRow, VariantName, VariantRow

Setting = str | int | float | bool | None


class LimitsFileRow(Part):
    """A file of limits, as it was given, and its hash."""

    path: str
    sha256: str


class LimitsUsed(Part):
    """The limits that variants were held to: those of every variant that has a verdict, each once."""

    within: str
    file: LimitsFileRow | None
    rows: tuple[LimitRow, ...]


class RecordedReference(Part):
    """A reference that was recorded on another machine: the file, and how it was run there."""

    file: str
    sha256: str
    device: str
    device_model: str
    arithmetic: str
    images: tuple[str, ...]
    environment: FrozenMapping[str | int]
    time: str


class ReferenceRow(Part):
    """What variants were held against. ``name`` is None where there was nothing."""

    name: str | None
    source: str
    precision: str
    device: str
    recorded: RecordedReference | None = None


class InputsRow(Part):
    """The images that variants were judged on, and where they come from."""

    source: str
    images: tuple[str, ...]


class FileRow(Part):
    """One file of the artifact."""

    sha256: str
    nbytes: int


class ManifestIdentity(Part):
    """By which hashes the artifact is known, as its manifest has them."""

    sha256: str
    vconv: str
    files: FrozenMapping[FileRow]


class TimingRow(Part):
    """How much was timed: see :class:`vconv.runtime.timing.clocks.TimingPlan`."""

    batches: tuple[int, ...]
    warmups: int
    runs: int
    budget_seconds: float | None


class CheckRow(Part):
    """One thing that was looked at beside the comparison of outputs: see :class:`vconv.types.Check`."""

    name: str
    status: Status
    detail: str
    fault: str = ""


class DiagnosisRow(Part):
    """What failures come of, and where it was seen. In JSON ``fault`` is ``class``."""

    fault: str = Field(validation_alias=AliasChoices("class", "fault"), serialization_alias="class")
    meaning: str
    where: str
    because: str


class MachineLoad(Part):
    """What others took of the machine: see :class:`vconv.runtime.timing.machine_load.Load`."""

    others_cores: Figure
    steal_cores: Figure
    busy: bool | None
    reason: str


class RankRow(VariantName):
    """The place of a variant at one batch on one device; ``rank`` is None for a baseline."""

    device: str
    batch: int
    rank: int | None
    p50_ms: float
    interval: tuple[float, float] | None
    tied_with: tuple[VariantName, ...]


class Winner(VariantName):
    """The variant that won a comparison, with those that share its rank."""

    tied_with: tuple[VariantName, ...]


class LeftOut(Part):
    """A device and batch without a ranking, and why."""

    device: str
    batch: int
    reason: str


class Ranking(Part):
    """Which variants are fastest: see :func:`vconv.validators.latency.ranking.rank`."""

    refused: str | None
    rows: tuple[RankRow, ...]
    left_out: tuple[LeftOut, ...]


class PublishedRow(Part):
    """Figures that others have published: see :class:`vconv.catalog.published.PublishedFigures`."""

    source: str
    kind: str
    device: str
    variant: str
    figures: FrozenMapping[float]
    batch: int | None = None
    output: str = ""


class Report(Document):
    """The report of a validation, as its JSON file has it.

    ``timing`` is None in reports of early versions, which do not say it.
    """

    schema_version: Literal[2] = SCHEMA_VERSION
    time: str
    host: str
    artifact: str
    weights: str
    synthetic: bool
    status: Status
    passed: bool
    limits: LimitsUsed
    reference: ReferenceRow
    inputs: InputsRow
    manifest: ManifestIdentity
    preprocessing_ms_per_image: float
    devices: FrozenMapping[str]
    device_settings: FrozenMapping[FrozenMapping[Setting]]
    environment: FrozenMapping[str | int]
    timing: TimingRow | None
    checks: tuple[CheckRow, ...]
    diagnosis: tuple[DiagnosisRow, ...]
    speed_up_baseline: str
    machine: MachineLoad
    ranking: Ranking
    variants: tuple[VariantRow, ...]
    published: tuple[PublishedRow, ...]
    dataset: DatasetReport | None

    @property
    def rows(self) -> tuple[VariantRow, ...]:
        """What was found of each variant, by the name that reports of every kind have it under."""
        return self.variants

    @property
    def simulated(self) -> bool:
        """Whether any device is an imitation."""
        return any(row.simulated for row in self.variants)

    def with_old_keys(self, document: dict[str, Any]) -> dict[str, Any]:
        """See :meth:`Document.with_old_keys`: ``output_summary`` was ``smoke``."""
        rows = [{**row, "smoke": row["output_summary"]} for row in document["variants"]]
        return {**document, "variants": rows}


class ValidationResult(Report):
    """What :func:`vconv.validate` returns: the report, and where it was written, as were its log and page.

    ``card`` is None where the artifact's README.md was left alone.
    """

    report: str
    log: str
    page: str
    card: str | None
