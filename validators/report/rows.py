"""The rows of a report: what was found of one variant, stage by stage of a run."""

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

from vconv.types import Status
from vconv.validators.accuracy.limits import Limit, Pair
from vconv.validators.accuracy.metrics import METRICS
from vconv.validators.report.model import Figure, FrozenMapping, Part


class LimitRow(Part):
    """The limit that a variant is held to, decided before it is run. ``source`` says who measured it."""

    precision: str
    arithmetic: str
    bounds: FrozenMapping[float]
    source: str

    @classmethod
    def of(cls, pair: Pair, limit: Limit) -> LimitRow:
        """Lay out the limit of a precision and an arithmetic."""
        return cls(precision=pair[0], arithmetic=pair[1], bounds=limit.bounds, source=limit.source)


class OutputRow(Part):
    """How one output of a variant did.

    ``metrics`` has the worst over the images, by the names of the table
    :data:`vconv.validators.accuracy.metrics.METRICS`; in JSON they stand beside the other keys. It is empty
    where the output could not be compared. ``limit`` is the bound on the vector relative error, ``floor`` the
    reference's own distance from float64.
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
        """Describe the metrics as JSON has them: beside the other keys."""
        schema = handler(core_schema)
        found = handler.resolve_ref_schema(schema)
        del found["properties"]["metrics"]
        found["required"].remove("metrics")
        number = {"anyOf": [{"type": "number"}, {"type": "null"}]}
        found["properties"] |= {name: {**number, "title": name} for name in METRICS}
        return schema

    @property
    def vector_relative_error(self) -> float | None:
        """The metric of that name; None where it is not known."""
        return self.metrics.get("vector_relative_error")


class OutputSummary(Part):
    """What came out at one output for the first image, at a glance. ``first`` has its first values."""

    shape: tuple[int, ...]
    dtype: str
    device: str
    min: Figure
    max: Figure
    mean: Figure
    first: tuple[Figure, ...]


class LatencyRow(Part):
    """How long a variant took at one batch, in milliseconds a batch.

    See :meth:`vconv.runtime.timing.clocks.Measurement.summary`. ``speed_up_over_cpu`` is None where there is
    no baseline at this batch.
    """

    batch: int
    runs: int
    mean_ms: float
    std_ms: Figure
    min_ms: float
    max_ms: float
    p50_ms: float
    p50_ms_interval: tuple[float, float] | None
    p90_ms: float
    p99_ms: Figure
    ms_per_image: float
    images_per_second: float
    warnings: tuple[str, ...]
    samples_ms: tuple[float, ...]
    speed_up_over_cpu: Figure = None


class SkippedBatch(Part):
    """A batch that was not timed, and why."""

    batch: int
    reason: str


class LaunchesRow(Part):
    """What one image launches: see :class:`vconv.runtime.timing.launches.Launches`."""

    operators: FrozenMapping[int]
    total: int
    how: str


class PredictedErrors(Part):
    """The errors that a simulated device predicts of one output."""

    relative_error: Figure
    vector_relative_error: Figure


class CauseRow(Part):
    """What one cause alone contributes: how many operators it ``changed``, and the errors by output."""

    changed: int
    outputs: FrozenMapping[PredictedErrors]


class PredictionRow(Part):
    """What a simulated device predicts: see :func:`vconv.validators.accuracy.prediction.predict`.

    ``outputs`` has the predicted errors, ``causes`` those of each cause alone, ``rest`` those without any.
    """

    arithmetic: FrozenMapping[str]
    executed: int
    changed: FrozenMapping[int]
    outputs: FrozenMapping[PredictedErrors]
    causes: FrozenMapping[CauseRow]
    rest: FrozenMapping[PredictedErrors]


class ExplanationRow(Part):
    """A class of fault that a variant's failure is of, and what says so. In JSON ``fault`` is ``class``."""

    fault: str = Field(validation_alias=AliasChoices("class", "fault"), serialization_alias="class")
    because: str


class DepthRow(Part):
    """The vector relative error after one stage, on the first image."""

    stage: str
    error: Figure


class PatchMapRow(Part):
    """The greatest vector relative error of a patch of one image."""

    image: str
    largest: Figure


class VariantName(Part):
    """What tells a variant from all others on one device."""

    artifact: str
    variant: str
    engine: str


class VerdictRow(VariantName):
    """A variant on a device, and how it ended."""

    device: str
    simulated: bool
    status: Status
    reason: str
    timing_refused: str | None


class VariantRow(VerdictRow):
    """What was found of one variant. It is assembled once, when all that concerns it is known.

    ``limit`` is what the variant is held to, None where it is measured but not judged. What was not looked
    at, or does not apply, is None or empty; ``depth_reason``, ``patch_maps_reason``, ``peak_memory_reason``
    and ``timing_refused`` say why.
    """

    precision: str
    arithmetic: str
    limit: LimitRow | None
    batches: tuple[int, ...]
    outputs: FrozenMapping[OutputRow]
    diagnosis: tuple[ExplanationRow, ...]
    output_summary: FrozenMapping[OutputSummary]
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
        """Whether there is a verdict: it passed or failed."""
        return self.status is not Status.SKIPPED

    @property
    def passed(self) -> bool:
        """Whether it passed."""
        return self.status is Status.PASSED
