"""The report of a validation: one frozen document, from which JSON, log, page and card are made."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AliasChoices, Field

from vconv.types import Status
from vconv.validators.report.dataset_document import DatasetReport
from vconv.validators.report.model import SCHEMA_VERSION, Document, Figure, FrozenMapping, Moment, ReportPart
from vconv.validators.report.rows import LimitRow, VariantName, VariantRow

Setting = str | int | float | bool | None


class LimitsFileRow(ReportPart):
    """A file of limits: its path, as it was given, and its hash."""

    path: str
    sha256: str


class LimitsUsed(ReportPart):
    """The limits by which variants were judged: each limit of a variant with a verdict, listed once."""

    within: str
    file: LimitsFileRow | None
    rows: tuple[LimitRow, ...]


class RecordedReference(ReportPart):
    """A reference that was recorded on another machine: its file, and how it was computed there."""

    file: str
    sha256: str
    device: str
    device_model: str
    arithmetic: str
    images: tuple[str, ...]
    environment: FrozenMapping[str | int]
    time: str


class ReferenceRow(ReportPart):
    """The reference that variants were compared with. ``name`` is None if there was no reference."""

    name: str | None
    source: str
    precision: str
    device: str
    recorded: RecordedReference | None = None


class InputsRow(ReportPart):
    """The images on which variants were judged, and their source."""

    source: str
    images: tuple[str, ...]


class FileRow(ReportPart):
    """One file of the artifact."""

    sha256: str
    nbytes: int


class ManifestIdentity(ReportPart):
    """The hashes that identify the artifact: that of its manifest, and those that its manifest lists."""

    sha256: str
    vconv: str
    files: FrozenMapping[FileRow]


class ReadOutputRow(ReportPart):
    """What an output of a graph is: see :class:`vconv.validators.foreign.contract.Matched`."""

    output: str
    reading: str
    form: str
    how: str
    error: Figure


class GraphRow(ReportPart):
    """A graph of another exporter, and its contract.

    ``levels`` says what the values of its input are. ``rounded`` says whether it takes whole numbers, so that
    its reference ran on images with rounded grey levels. ``size`` and ``batch`` are None if they are symbols.
    ``unread`` has the outputs that are nothing that the reference gives, with the reason.
    """

    path: str
    sha256: str
    nbytes: int
    producer: str
    opset: int
    precision: str
    input: str
    layout: str
    dtype: str
    levels: str
    rounded: bool = False
    size: tuple[int, int] | None
    batch: int | None
    outputs: tuple[ReadOutputRow, ...]
    unread: FrozenMapping[str]
    stated: bool


class TimingRow(ReportPart):
    """The amount of timing: see :class:`vconv.runtime.timing.clocks.TimingPlan`."""

    batches: tuple[int, ...]
    warmups: int
    runs: int
    budget_seconds: float | None


class CheckRow(ReportPart):
    """One check other than the comparison of outputs: see :class:`vconv.types.Check`."""

    name: str
    status: Status
    detail: str
    fault: str = ""


class DiagnosisRow(ReportPart):
    """The cause of failures, and where it was seen. In JSON, the key of ``fault`` is ``class``."""

    fault: str = Field(validation_alias=AliasChoices("class", "fault"), serialization_alias="class")
    meaning: str
    where: str
    because: str


class MachineLoad(ReportPart):
    """The load of other processes on the machine: see :class:`vconv.runtime.timing.machine_load.Load`."""

    others_cores: Figure
    steal_cores: Figure
    busy: bool | None
    reason: str


class RankRow(VariantName):
    """The rank of a variant at one batch on one device; ``rank`` is None for a baseline."""

    device: str
    batch: int
    rank: int | None
    p50_ms: float
    interval: tuple[float, float] | None
    tied_with: tuple[VariantName, ...]


class Winner(VariantName):
    """The first variant of a ranking, with the variants that share its rank.

    ``load`` is the line of Python that opens it; None for a graph of another exporter, which is no artifact.
    Reports of versions that did not record them lack ``device``, ``batch`` and ``load``.
    """

    tied_with: tuple[VariantName, ...]
    device: str = ""
    batch: int | None = None
    load: str | None = None


class LeftOut(ReportPart):
    """A device and batch without a ranking, and the reason."""

    device: str
    batch: int
    reason: str


class Ranking(ReportPart):
    """The ranking of variants by speed: see :func:`vconv.validators.latency.ranking.rank`."""

    refused: str | None
    rows: tuple[RankRow, ...]
    left_out: tuple[LeftOut, ...]


class PublishedRow(ReportPart):
    """Figures that others have published: see :class:`vconv.catalog.published.PublishedFigures`."""

    source: str
    kind: str
    device: str
    variant: str
    figures: FrozenMapping[float]
    batch: int | None = None
    output: str = ""


class Report(Document):
    """The report of a validation, with the fields of its JSON file.

    ``timing`` is None in reports of early versions, which did not record it. ``manifest`` is None if graphs
    of another exporter were judged; ``graphs`` then describes them. ``winners`` has one entry for each
    requested device with a ranking.
    """

    schema_version: Literal[2] = SCHEMA_VERSION
    time: Moment
    host: str
    artifact: str
    weights: str
    synthetic: bool
    status: Status
    passed: bool
    limits: LimitsUsed
    reference: ReferenceRow
    inputs: InputsRow
    manifest: ManifestIdentity | None
    graphs: tuple[GraphRow, ...] = ()
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
    winners: tuple[Winner, ...] = ()
    variants: tuple[VariantRow, ...]
    published: tuple[PublishedRow, ...]
    dataset: DatasetReport | None

    @property
    def rows(self) -> tuple[VariantRow, ...]:
        """The results of each variant, under the name that comparisons use too."""
        return self.variants

    @property
    def simulated(self) -> bool:
        """Whether any device is simulated."""
        return any(row.device_simulated for row in self.variants)

    def with_old_keys(self, document: dict[str, Any]) -> dict[str, Any]:
        """Add the old key of ``output_summary``, ``smoke``: see :meth:`Document.with_old_keys`."""
        rows = [{**row, "smoke": row["output_summary"]} for row in document["variants"]]
        return {**document, "variants": rows}


class ValidationResult(Report):
    """The return value of :func:`vconv.validate`: the report, and the paths of its JSON, log and page.

    ``card`` is the path of the model card; None if the artifact's README.md was not changed.
    """

    report: str
    log: str
    page: str
    card: str | None
