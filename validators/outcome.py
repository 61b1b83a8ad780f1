"""What the stages of a run find out about one variant, each immutable, and the row assembled of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from vconv.errors import EngineError
from vconv.runtime.engines.arithmetic import UNKNOWN
from vconv.runtime.engines.base import Session
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
    SkippedBatch,
    VariantRow,
)

if TYPE_CHECKING:
    from vconv.validators.validation import Candidate

NOT_LOOKED_AT = "not looked at"
"""Why a row lacks what is looked at beside judging: nobody did, or the variant could not be run."""

Found = TypeVar("Found")


@dataclass(frozen=True)
class Looked(Generic[Found]):
    """What a look at an open variant found.

    Args:
        rows: what was found; None where there is nothing.
        reason: why there is nothing; empty if there is something.
    """

    rows: tuple[Found, ...] | None = None
    reason: str = NOT_LOOKED_AT


DepthLook = Callable[["Candidate", Session, Arrays], Looked[DepthRow]]
"""Looks at the error of an open variant after each stage, given its outputs of all images."""
MapLook = Callable[["Candidate", Session, Arrays], Looked[PatchMapRow]]
"""Looks at a variant's patches, likewise."""


@dataclass(frozen=True)
class Costs:
    """What is paid before the steady state, in milliseconds; None for an imitation.

    Args:
        load_ms: to load a variant.
        first_ms: to run it once.
    """

    load_ms: float | None = None
    first_ms: float | None = None


@dataclass(frozen=True)
class Judgement:
    """How a variant's outputs did.

    Args:
        batches: at which it was judged.
        verdicts: by output, the worst over these batches.
        explanations: what a failure comes of, where that is known.
        summary: by output, what came out for the first image.
        fallbacks: by operator, the nodes that an accelerator left to the CPU; None where that is not known.
    """

    batches: tuple[int, ...] = ()
    verdicts: Mapping[str, OutputVerdict] | None = None
    explanations: tuple[Explanation, ...] = ()
    summary: Mapping[str, OutputSummary] | None = None
    fallbacks: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Timed:
    """How long a variant took.

    Args:
        measurements: one a batch.
        skipped: by batch, why it was not timed.
        untimed: why no time of it can be believed; empty if that is not so.
        refusal: what ended it; None if nothing did.
    """

    measurements: tuple[Measurement, ...] = ()
    skipped: tuple[tuple[int, str], ...] = ()
    untimed: str = ""
    refusal: EngineError | None = None


@dataclass(frozen=True)
class Outcome:
    """All that is known of a variant so far.

    Args:
        candidate: the variant.
        limit: what it is held to, decided once, before it is opened; None where it is not judged.
        status: how it ended.
        reason: why it was not judged, or could not be run; empty if it was.
        arithmetic: what its engine computes its precision in, as the probe found.
        memory: its peak of memory.
        costs: what is paid before the steady state.
        judgement: how its outputs did.
        depth: the error after each stage.
        patch_maps: the error patch by patch.
        gelu: how its device computes GELU in it; None where that is nothing special.
        launches: what one image launches; None where that cannot be seen.
        prediction: what a simulated device predicts.
        timed: how long it took.
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
    gelu: str | None = None
    launches: Launches | None = None
    prediction: PredictionRow | None = None
    timed: Timed = Timed()


def unless(unjudged: object) -> Status:
    """Return what becomes of a variant that an engine refuses: what is not judged cannot fail."""
    return Status.SKIPPED if unjudged else Status.FAILED


def variant_row(outcome: Outcome) -> VariantRow:
    """Assemble the row of a variant: the one place where a row of a report is made."""
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
        simulated=device.simulated,
        limit=LimitRow.of((precision, arithmetic), outcome.limit) if outcome.limit else None,
        status=status,
        reason=reason,
        batches=judgement.batches,
        outputs=_outputs(judgement.verdicts or {}, outcome.limit, candidate.reference),
        diagnosis=tuple(ExplanationRow.model_validate(one) for one in judgement.explanations),
        output_summary=judgement.summary or {},
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
    """Lay out how each output did; one that was measured but not judged has neither passed nor failed."""
    bound = limit.bounds.get("vector_relative_error") if limit else None
    rows = {}
    for name, verdict in verdicts.items():
        floor, reasons = reference.floor.get(name), verdict.reasons
        if bound is not None and floor is not None and bound < floor:
            reasons = (f"the limit {bound:.1e} lies under the floor {floor:.1e}", *reasons)
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
