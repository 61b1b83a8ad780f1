"""The rows of a report: the results of one variant, from each stage of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import (
    AliasChoices,
    Field,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from vconv.runtime.engines.table import simulates
from vconv.types import Status
from vconv.validators.accuracy.limits import Limit, Pair
from vconv.validators.accuracy.metrics import METRICS
from vconv.validators.report.model import Figure, FrozenMapping, ReportPart


class LimitRow(ReportPart):
    """The limit of a variant, chosen before it is run. ``source`` names the measurement behind it."""

    precision: str
    arithmetic: str
    bounds: FrozenMapping[float]
    source: str

    @classmethod
    def of(cls, pair: Pair, limit: Limit) -> LimitRow:
        """Return the row of a limit for a precision and an arithmetic."""
        return cls(precision=pair[0], arithmetic=pair[1], bounds=limit.bounds, source=limit.source)


class OutputRow(ReportPart):
    """The result of one output of a variant.

    ``metrics`` has the worst value of each metric over the images, by the names in
    :data:`vconv.validators.accuracy.metrics.METRICS`; in JSON, the metrics are beside the other keys. It is
    empty if the output could not be compared. ``limit`` is the bound on the vector relative error. ``floor``
    is the vector relative error of the reference in fp32 against float64.
    """

    status: Status
    shape: tuple[int, ...]
    floor: Figure
    limit: Figure
    metrics: FrozenMapping[Figure]
    to_stock_original: Figure = None
    reasons: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, content: Any) -> Any:
        if not isinstance(content, Mapping) or "metrics" in content:
            return content
        metrics = {key: value for key, value in content.items() if key in METRICS}
        return {**{key: value for key, value in content.items() if key not in METRICS}, "metrics": metrics}

    @model_serializer(mode="wrap")
    def _spread(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        metrics = content.pop("metrics")
        return {**content, **metrics}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Describe the metrics as in JSON: beside the other keys."""
        schema = handler(core_schema)
        found = handler.resolve_ref_schema(schema)
        del found["properties"]["metrics"]
        found["required"].remove("metrics")
        number = {"anyOf": [{"type": "number"}, {"type": "null"}]}
        found["properties"] |= {name: {**number, "title": name} for name in METRICS}
        return schema

    @property
    def vector_relative_error(self) -> float | None:
        """The vector relative error; None if it is not known."""
        return self.metrics.get("vector_relative_error")


class OutputSummary(ReportPart):
    """A short summary of one output for the first image. ``first`` has its first values."""

    shape: tuple[int, ...]
    dtype: str
    device: str
    min: Figure
    max: Figure
    mean: Figure
    first: tuple[Figure, ...]


class LatencyRow(ReportPart):
    """The latency of a variant at one batch, in milliseconds per batch.

    See :meth:`vconv.runtime.timing.clocks.Measurement.summary`. ``p90_ms`` and ``p99_ms`` are None
    if the samples are too few for them. ``speed_up_over_cpu`` is None if there is no baseline at this batch,
    or no ranking.
    """

    batch: int
    runs: int
    mean_ms: float
    std_ms: Figure
    min_ms: float
    max_ms: float
    p50_ms: float
    p50_ms_interval: tuple[float, float] | None
    p90_ms: Figure
    p99_ms: Figure
    ms_per_image: float
    images_per_second: float
    warnings: tuple[str, ...]
    samples_ms: tuple[float, ...]
    speed_up_over_cpu: Figure = None


class SkippedBatch(ReportPart):
    """A batch that was not timed, and the reason."""

    batch: int
    reason: str


class LaunchesRow(ReportPart):
    """The launches for one image: see :class:`vconv.runtime.timing.launches.Launches`."""

    operators: FrozenMapping[int]
    total: int
    how: str


class PredictedErrors(ReportPart):
    """The errors that a simulated device predicts for one output."""

    relative_error: Figure
    vector_relative_error: Figure


class CauseRow(ReportPart):
    """The effect of one cause alone: the number of operators ``changed``, and the errors by output."""

    changed: int
    outputs: FrozenMapping[PredictedErrors]


class PredictionRow(ReportPart):
    """The prediction of a simulated device: see :func:`vconv.validators.accuracy.prediction.predict`.

    ``outputs`` has the predicted errors, ``causes`` the errors with each cause alone, ``rest`` the errors
    without any cause.
    """

    arithmetic: FrozenMapping[str]
    executed: int
    changed: FrozenMapping[int]
    outputs: FrozenMapping[PredictedErrors]
    causes: FrozenMapping[CauseRow]
    rest: FrozenMapping[PredictedErrors]


class ExplanationRow(ReportPart):
    """The class of fault behind a failure, and the evidence. In JSON, the key of ``fault`` is ``class``."""

    fault: str = Field(validation_alias=AliasChoices("class", "fault"), serialization_alias="class")
    because: str


class SizeRow(ReportPart):
    """The result of a variant at images of another (height, width) than the image processor's.

    ``vector_relative_error`` is the worst over the outputs; None if the variant could not be run, or
    no output be compared. ``reasons`` is empty if every output passed. ``skipped`` says why the variant takes
    no images of this size; empty if it was run.
    """

    size: tuple[int, int]
    batch: int
    vector_relative_error: Figure
    reasons: tuple[str, ...] = ()
    skipped: str = ""


class DepthRow(ReportPart):
    """The vector relative error after one stage, on the first image."""

    stage: str
    error: Figure


class PatchMapRow(ReportPart):
    """The greatest vector relative error of any patch of one image."""

    image: str
    largest: Figure


class VariantName(ReportPart):
    """The names that identify a variant on one device."""

    artifact: str
    variant: str
    engine: str


class VerdictRow(VariantName):
    """A variant on a device, and its status.

    ``simulated`` says whether its device is simulated, or its engine simulates the type of the graph.
    """

    device: str
    simulated: bool
    status: Status
    reason: str
    timing_refused: str | None

    @property
    def device_simulated(self) -> bool:
        """Whether its device is simulated."""
        return self.simulated and not simulates(self.engine)


class VariantRow(VerdictRow):
    """The results of one variant. The row is assembled once, when all results are known.

    ``limit`` is None if the variant is measured but not judged. ``sizes`` has the results at other sizes of
    images, if the variant takes any. ``threads`` is the number of threads that the engine used on a CPU; None
    on other devices, if it is not known, and in reports of versions that did not record it. Fields that were
    not measured, or do not apply, are None or empty; ``depth_reason``, ``patch_maps_reason``,
    ``peak_memory_reason`` and ``timing_refused`` give the reasons.
    """

    precision: str
    arithmetic: str
    limit: LimitRow | None
    batches: tuple[int, ...]
    sizes: tuple[SizeRow, ...] = ()
    outputs: FrozenMapping[OutputRow]
    diagnosis: tuple[ExplanationRow, ...]
    output_summary: FrozenMapping[OutputSummary]
    threads: int | None = None
    gelu: str | None
    prediction: PredictionRow | None
    depth: tuple[DepthRow, ...] | None
    depth_reason: str
    patch_maps: tuple[PatchMapRow, ...] | None
    patch_maps_reason: str
    launches: LaunchesRow | None
    fallbacks: FrozenMapping[int] | None
    load_ms: Figure
    first_ms: Figure
    latency: tuple[LatencyRow, ...]
    skipped_batches: tuple[SkippedBatch, ...]
    peak_memory_is: str | None
    peak_memory_reason: str
    peak_rss_bytes: int | None
    peak_rss_growth_bytes: int | None
    peak_device_bytes: int | None

    @property
    def judged(self) -> bool:
        """Whether the variant has a verdict: passed or failed."""
        return self.status in (Status.PASSED, Status.FAILED)

    @property
    def passed(self) -> bool:
        """Whether the variant passed."""
        return self.status is Status.PASSED
