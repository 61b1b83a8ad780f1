"""Immutable results of the stages of a run for one variant, and the report row assembled from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from vconv.errors import EngineError
from vconv.runtime.engines.arithmetic import UNKNOWN
from vconv.runtime.engines.base import Session
from vconv.runtime.engines.table import simulates
from vconv.runtime.timing.clocks import Measurement
from vconv.runtime.timing.launches import Launches
from vconv.types import Arrays, Status
from vconv.validators.accuracy.golden import Reference
from vconv.validators.accuracy.limits import Limit
from vconv.validators.accuracy.verdicts import OutputVerdict
from vconv.validators.bisect.hypotheses import Explanation
from vconv.validators.latency.peak_memory import UNMEASURED, MemoryFound
from vconv.validators.report.rows import (
    DepthRow,
    ExplanationRow,
    LatencyRow,
    LaunchesRow,
    LimitRow,
    OutputRow,
    OutputSummary,
    PatchMapRow,
    PredictionRow,
    SizeRow,
    SkippedBatch,
    VariantRow,
)

if TYPE_CHECKING:
    from vconv.validators.validation import Candidate

NOT_LOOKED_AT = "not measured"
"""The reason in a row without depth or patch maps: not requested, or the variant could not be run."""

Found = TypeVar("Found")


@dataclass(frozen=True)
class Looked(Generic[Found]):
    """The result of an additional measurement of an open variant.

    Args:
        rows: the result; None if there is none.
        reason: why there is no result; empty if there is one.
    """

    rows: tuple[Found, ...] | None = None
    reason: str = NOT_LOOKED_AT


DepthLook = Callable[["Candidate", Session, Arrays], Looked[DepthRow]]
"""Measures the error of an open variant after each stage, given its outputs for all images."""
MapLook = Callable[["Candidate", Session, Arrays], Looked[PatchMapRow]]
"""Measures the error of each patch of an open variant, given its outputs for all images."""


@dataclass(frozen=True)
class Costs:
    """Times before the steady state, in milliseconds; None on a simulated device.

    Args:
        load_ms: time to load the variant.
        first_ms: time of its first run.
    """

    load_ms: float | None = None
    first_ms: float | None = None


@dataclass(frozen=True)
class Judgement:
    """The judgement of a variant's outputs.

    Args:
        batches: the batch sizes at which it was judged.
        verdicts: by output, the worst verdict over these batches.
        sizes: the results at other sizes of images, if it takes any.
        explanations: the causes of a failure, as far as known.
        summary: by output, a summary of the first image's values.
        fallbacks: by operator, the number of nodes that an accelerator left to the CPU; None if not known.
    """

    batches: tuple[int, ...] = ()
    verdicts: Mapping[str, OutputVerdict] | None = None
    sizes: tuple[SizeRow, ...] = ()
    explanations: tuple[Explanation, ...] = ()
    summary: Mapping[str, OutputSummary] | None = None
    fallbacks: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Timed:
    """The timing of a variant.

    Args:
        measurements: one per batch.
        skipped: by batch, why it was not timed.
        untimed: why none of its times are reliable; empty if they are.
        refusal: the error that ended its timing; None if there was none.
    """

    measurements: tuple[Measurement, ...] = ()
    skipped: tuple[tuple[int, str], ...] = ()
    untimed: str = ""
    refusal: EngineError | None = None


@dataclass(frozen=True)
class Outcome:
    """All results for a variant so far.

    Args:
        candidate: the variant.
        limit: its limit, chosen once, before it is opened; None if it is not judged.
        status: its status.
        reason: why it was not judged, or could not be run; empty if it was.
        arithmetic: the arithmetic in which its engine computes its precision, as the probe found.
        memory: its peak memory.
        costs: the times before the steady state.
        judgement: the judgement of its outputs.
        depth: the error after each stage.
        patch_maps: the error of each patch.
        threads: the number of threads that its engine uses on a CPU; None elsewhere, and if not known.
        gelu: how its device computes GELU; None if it is the standard computation.
        launches: the launches for one image; None if they cannot be counted.
        prediction: the errors that a simulated device predicts.
        timed: its timing.
    """

    candidate: Candidate
    limit: Limit | None
    status: Status
    reason: str = ""
    arithmetic: str = UNKNOWN
    memory: MemoryFound = UNMEASURED
    costs: Costs = Costs()
    judgement: Judgement = Judgement()
    depth: Looked[DepthRow] = Looked()
    patch_maps: Looked[PatchMapRow] = Looked()
    threads: int | None = None
    gelu: str | None = None
    launches: Launches | None = None
    prediction: PredictionRow | None = None
    timed: Timed = Timed()


def unless(unjudged: object) -> Status:
    """Return the status of a variant that an engine refuses: a variant that is not judged cannot fail."""
    return Status.SKIPPED if unjudged else Status.FAILED


def variant_row(outcome: Outcome) -> VariantRow:
    """Assemble the report row of a variant; no other function makes one."""
    candidate, judgement, timed = outcome.candidate, outcome.judgement, outcome.timed
    device, memory = candidate.device, outcome.memory
    status, reason, costs = outcome.status, outcome.reason, outcome.costs
    if timed.refusal:
        status, reason = unless(status is Status.SKIPPED), str(timed.refusal)
    if timed.untimed:
        costs = Costs()
    precision, arithmetic = candidate.precision, outcome.arithmetic
    return VariantRow(
        artifact=candidate.artifact,
        variant=candidate.variant,
        engine=candidate.engine,
        device=device.name,
        precision=precision,
        arithmetic=arithmetic,
        simulated=device.simulated or simulates(candidate.engine),
        limit=LimitRow.of((precision, arithmetic), outcome.limit) if outcome.limit else None,
        status=status,
        reason=reason,
        batches=judgement.batches,
        sizes=judgement.sizes,
        outputs=_outputs(judgement.verdicts or {}, outcome.limit, candidate.reference),
        diagnosis=tuple(ExplanationRow.model_validate(one) for one in judgement.explanations),
        output_summary=judgement.summary or {},
        threads=outcome.threads,
        gelu=outcome.gelu,
        prediction=outcome.prediction,
        depth=outcome.depth.rows,
        depth_reason=outcome.depth.reason,
        patch_maps=outcome.patch_maps.rows,
        patch_maps_reason=outcome.patch_maps.reason,
        launches=LaunchesRow.model_validate(outcome.launches) if outcome.launches else None,
        fallbacks=judgement.fallbacks,
        load_ms=costs.load_ms,
        first_ms=costs.first_ms,
        latency=tuple(LatencyRow.model_validate(one.summary()) for one in timed.measurements),
        skipped_batches=tuple(SkippedBatch(batch=batch, reason=why) for batch, why in timed.skipped),
        timing_refused=timed.untimed or None,
        peak_memory_is=memory.where,
        peak_memory_reason=memory.reason,
        peak_rss_bytes=memory.peak_rss_bytes,
        peak_rss_growth_bytes=memory.peak_rss_growth_bytes,
        peak_device_bytes=memory.peak_device_bytes,
    )


def _outputs(
    verdicts: Mapping[str, OutputVerdict], limit: Limit | None, reference: Reference
) -> dict[str, OutputRow]:
    """Return the rows of the outputs; an output that was not judged has neither passed nor failed."""
    bound = limit.bounds.get("vector_relative_error") if limit else None
    rows = {}
    for name, verdict in verdicts.items():
        floor, reasons = reference.floor.get(name), verdict.reasons
        if bound is not None and floor is not None and bound < floor:
            reasons = (f"the limit {bound:.1e} is below the floor {floor:.1e}", *reasons)
        rows[name] = OutputRow(
            status=verdict.status if limit else Status.SKIPPED,
            shape=verdict.shape,
            floor=floor,
            limit=bound,
            metrics=verdict.metrics,
            to_stock_original=reference.to_stock_original.get(name),
            reasons=reasons,
        )
    return rows
