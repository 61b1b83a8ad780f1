"""A validation, step by step: each variant is opened, compared with its reference, and timed.

The result of each stage is immutable, and a row is assembled from all of them at the end: see
:mod:`vconv.validators.outcome`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from vconv.errors import EngineError, MemoryShortError, UnavailableError
from vconv.progress import ProgressMeter
from vconv.runtime.devices.base import Device
from vconv.runtime.devices.memory import reset_peak_memory, resident_memory
from vconv.runtime.engines.arithmetic import UNKNOWN, arithmetic_of
from vconv.runtime.engines.base import Session, in_batches
from vconv.runtime.engines.table import find_engine
from vconv.runtime.processes.measurer import PeakMeasurer
from vconv.runtime.processes.request import OpenRequest
from vconv.runtime.simulation.session import Simulated
from vconv.runtime.timing.clocks import TimingPlan, timed
from vconv.runtime.timing.machine_load import UNTIMED, Load
from vconv.types import Arrays, Say, Status
from vconv.validators import at_other_sizes
from vconv.validators.accuracy.golden import AT_ONCE, Reference
from vconv.validators.accuracy.limits import UNLIMITED, Limits, Pair
from vconv.validators.accuracy.prediction import NOTHING_CHANGED, predict
from vconv.validators.accuracy.verdicts import judge_runs, overall
from vconv.validators.bisect.hypotheses import Explanation, FailedVariant, diagnose
from vconv.validators.latency.peak_memory import in_process, isolated
from vconv.validators.latency.side_by_side import Runner, time_side_by_side
from vconv.validators.outcome import (
    Costs,
    DepthLook,
    Judgement,
    Looked,
    MapLook,
    Outcome,
    Timed,
    unless,
    variant_row,
)
from vconv.validators.report import sentences
from vconv.validators.report.output_summary import summarise_outputs
from vconv.validators.report.rows import VariantRow


@dataclass(frozen=True)
class Candidate:
    """One variant to run and to judge.

    Args:
        artifact: the artifact that it belongs to.
        variant: its name.
        engine: the engine that runs it.
        precision: the precision whose limit applies.
        device: the device on which it runs.
        reference: the reference that it is compared with.
        open: loads it.
        subject: a description in plain data, with which a separate process can load it.
        unjudged: why it is measured but not judged; empty if it is judged.
        any_size: whether it takes images of any size, so that it is judged at other sizes too.
        explained: why it fails, as far as that is known before it is run.
    """

    artifact: str
    variant: str
    engine: str
    precision: str
    device: Device
    reference: Reference
    open: Callable[[], Session]
    subject: OpenRequest
    unjudged: str = ""
    any_size: bool = False
    explained: tuple[Explanation, ...] = ()

    @property
    def timed(self) -> bool:
        """Whether its latency says anything: that of a simulation does not."""
        return not self.device.simulated and find_engine(self.engine).timed

    @property
    def pair(self) -> Pair:
        """Its precision and the arithmetic of its engine on its device: they determine its limit.

        Raises:
            UnavailableError: see :func:`vconv.runtime.engines.arithmetic.arithmetic_of`.
            EngineError: see there.
        """
        return self.precision, arithmetic_of(self.engine, self.device, self.subject.precision)


@dataclass(frozen=True)
class RunResult:
    """The result of a run.

    Args:
        rows: one row per variant, as in the report.
        machine: the load of other processes on the machine while variants were timed.
    """

    rows: tuple[VariantRow, ...]
    machine: Load


@dataclass(frozen=True)
class Looks:
    """Additional measurements while a variant is open; None leaves one out.

    Args:
        depth: measures the error after each stage.
        patch_maps: measures the error of each patch.
        profile: profiles the variant.
    """

    depth: DepthLook | None = None
    patch_maps: MapLook | None = None
    profile: Callable[[Candidate, Session], None] | None = None


def run(
    candidates: Sequence[Candidate],
    limits: Limits,
    plan: TimingPlan | None,
    say: Say,
    measurer: PeakMeasurer | None = None,
    looks: Looks = Looks(),
) -> RunResult:
    """Judge variants and time them. The limit of each is chosen here, once, and recorded in its row.

    Args:
        candidates: the variants to run.
        limits: the limits by which they are judged.
        plan: how much to time; None to time nothing.
        say: receives progress lines.
        measurer: measures a variant's memory in a separate process; it is closed before variants are timed.
            If it is None, this process's memory is measured, which includes what other variants left in it.
        looks: additional measurements while a variant is open.
    """
    outcomes: list[Outcome] = []
    machine = UNTIMED
    runners: dict[int, Runner] = {}
    with contextlib.ExitStack() as closing:
        if measurer:
            measurer.ready()
        judged = ProgressMeter("variants judged", len(candidates), say)
        for candidate in candidates:
            simulated = ", simulated" * candidate.device.simulated
            say(f"{candidate.variant} ({candidate.engine}, {candidate.device.name}{simulated})")
            if outcomes:
                judged.add()  # counts the previous variant; called earlier, the line above would hide it
            start = _begun(candidate, measurer)
            with contextlib.ExitStack() as one:
                outcome, session = _judged(start, limits, one, looks)
                counts = outcome.judgement.fallbacks
                if warning := sentences.left_to_cpu(candidate, candidate.device.name, counts):
                    say(f"warning: {warning}")
                if plan and session and candidate.timed:
                    images = candidate.reference.pixel_values
                    runners[len(outcomes)] = Runner(session, candidate.device, images)
                    closing.push(one.pop_all())
            outcomes.append(outcome)
            del session
        if measurer:
            measurer.close()
        if plan and runners:
            machine = time_side_by_side(runners, plan, say)
    for place, runner in runners.items():
        outcomes[place] = replace(outcomes[place], timed=_timed(runner))
    return RunResult(tuple(map(variant_row, outcomes)), machine)


def _begun(candidate: Candidate, measurer: PeakMeasurer | None) -> Outcome:
    """Measure a variant's memory in a separate process, if there is one."""
    outcome = Outcome(candidate, None, Status.INCOMPLETE)
    if measurer and candidate.timed:
        return replace(outcome, memory=isolated(measurer.measure(candidate.subject)))
    return outcome


def _held(outcome: Outcome, limits: Limits) -> Outcome:
    """Choose the limit of a variant by its engine's arithmetic; skip the variant if there is no limit."""
    candidate, pair = outcome.candidate, outcome.candidate.pair
    outcome = replace(outcome, arithmetic=pair[1])
    if candidate.unjudged:
        return outcome
    if pair not in limits.table:
        computes = "in an unknown arithmetic" if pair[1] == UNKNOWN else pair[1]
        return replace(outcome, status=Status.SKIPPED, reason=f"engine computes {computes}")
    return replace(outcome, limit=limits.table[pair])


def _judged(
    start: Outcome, limits: Limits, closing: contextlib.ExitStack, looks: Looks
) -> tuple[Outcome, Session | None]:
    """Open a variant and judge it; return no session if it cannot be run."""
    candidate, outcome = start.candidate, start
    measured = start.memory.where is not None
    try:
        outcome = _held(outcome, limits)
        if outcome.status is Status.SKIPPED:
            return outcome, None
        # The probe of the arithmetic is done: its memory is not the variant's.
        before = resident_memory()[0] if not measured and reset_peak_memory() else None
        session, costs = _opened(candidate)
        closing.enter_context(session)
        outcome = replace(_accuracy(outcome, session, looks), costs=costs)
        outcome = replace(outcome, threads=session.threads, gelu=session.gelu or None)
        # Launches for one image; None if the engine cannot count them.
        outcome = replace(outcome, launches=session.launches(candidate.reference.pixel_values[:1]))
        if isinstance(session, Simulated):
            outcome = _predicted(outcome, session)
        elif not measured:
            peak = None if before is None else resident_memory()[1]
            outcome = replace(outcome, memory=in_process(before, peak))
    except UnavailableError as error:
        return replace(outcome, status=Status.SKIPPED, reason=f"{error.what}: {error.got}"), None
    except MemoryShortError as error:
        # A graph may ask for any amount of memory, so that this is not a reason to pass without it.
        status = Status.SKIPPED if candidate.unjudged else Status.INCOMPLETE
        return replace(outcome, status=status, reason=f"{error.what}: {error.got}"), None
    except EngineError as error:
        return replace(outcome, status=unless(candidate.unjudged), reason=str(error)), None
    return outcome, session


def _opened(candidate: Candidate) -> tuple[Session, Costs]:
    """Open a variant and run it once; return the session and both durations."""
    synchronize = candidate.device.synchronize
    start = time.perf_counter()
    session = candidate.open()
    synchronize()
    load_ms = 1e3 * (time.perf_counter() - start)
    try:
        images = candidate.reference.pixel_values
        run = session.bind(np.repeat(images[:1], session.batch or 1, axis=0))
        first_ms = 1e3 * timed(run, synchronize)
    except BaseException:
        session.close()
        raise
    # The latency of a simulated device says nothing about the real one.
    return session, Costs(load_ms, first_ms) if candidate.timed else Costs()


def _accuracy(outcome: Outcome, session: Session, looks: Looks) -> Outcome:
    """Run a variant at its batches, one and many if it is dynamic, and judge the worst result."""
    candidate, limit = outcome.candidate, outcome.limit
    reference = candidate.reference
    images = reference.pixel_values
    batches = [session.batch] if session.batch else sorted({1, min(AT_ONCE, len(images))})
    runs: list[Arrays] = [in_batches(session.run, images, batch) for batch in batches]
    verdicts = judge_runs(runs, reference.outputs, limit or UNLIMITED)
    status = overall(verdicts)
    explanations: list[Explanation] = []
    if limit and status is Status.FAILED and candidate.explained:
        explanations = [*candidate.explained]
    elif limit and status is Status.FAILED:
        again = partial(in_batches, session.run, batch=batches[0])
        # It has failed, even if the search for the cause fails.
        with contextlib.suppress(EngineError):
            explanations = diagnose(
                FailedVariant(again, runs[0], reference, verdicts, limit, candidate.precision)
            )
    first = {name: array[:1] for name, array in runs[0].items()}
    others = reference.elsewhere if candidate.any_size else ()
    sizes = tuple(at_other_sizes.judged_at(others, session, limit or UNLIMITED))
    told = at_other_sizes.failure(sizes) if limit and status is Status.PASSED else ""
    if told:
        explanations, status = [Explanation(at_other_sizes.FAULT, told)], Status.FAILED
    judgement = Judgement(
        batches=tuple(batches),
        sizes=sizes,
        verdicts=verdicts,
        explanations=tuple(explanations),
        summary=summarise_outputs(first, session.placed),
        fallbacks=session.fallbacks,
    )
    maps = looks.patch_maps(candidate, session, runs[0]) if looks.patch_maps else Looked()
    depth = looks.depth(candidate, session, runs[0]) if looks.depth else Looked()
    if looks.profile:
        looks.profile(candidate, session)
    return replace(
        outcome,
        status=status if limit else Status.SKIPPED,
        reason=candidate.unjudged or told,
        judgement=judgement,
        patch_maps=maps,
        depth=depth,
    )


def _predicted(outcome: Outcome, session: Simulated) -> Outcome:
    """Add the prediction of a simulated device; a variant in which it changed no operator has not passed."""
    candidate = outcome.candidate
    arithmetic, reference = candidate.device.simulates, candidate.reference
    assert arithmetic is not None
    run = partial(in_batches, session.run, reference.pixel_values, outcome.judgement.batches[-1])
    expected = reference.outputs if not candidate.unjudged else reference.stock or reference.outputs
    prediction = predict(session, run, expected, arithmetic)
    outcome = replace(outcome, prediction=prediction)
    if not any(prediction.changed.values()) and outcome.status is Status.PASSED:
        return replace(outcome, status=Status.SKIPPED, reason=NOTHING_CHANGED)
    return outcome


def _timed(runner: Runner) -> Timed:
    """Add the timing of one variant."""
    return Timed(tuple(runner.measurements), tuple(runner.skipped.items()), runner.untimed, runner.refusal)


def worst_failures(rows: Iterable[VariantRow]) -> list[str]:
    """Return the reason of each variant that did not pass; an export requires that all pass."""
    failures = []
    for row in rows:
        if not row.passed:
            reasons = [f"{name}: {found.reasons[0]}" for name, found in row.outputs.items() if found.reasons]
            failures.append(f"{row.variant} ({(reasons or [row.reason])[0]})")
    return failures
