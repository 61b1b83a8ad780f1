"""A validation, in a straight line: each variant is opened, held against its reference, and timed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from vconv.errors import EngineError, MemoryShortError, UnavailableError
from vconv.progress import ProgressMeter
from vconv.runtime.devices.base import Device
from vconv.runtime.devices.memory import reset_peak_memory, resident_memory
from vconv.runtime.engines.session import Session, in_batches
from vconv.runtime.processes.measurer import PeakMeasurer
from vconv.runtime.processes.request import OpenRequest
from vconv.runtime.simulation.session import Simulated
from vconv.runtime.timing.clocks import TimingPlan, timed
from vconv.runtime.timing.machine_load import UNTIMED, Load
from vconv.types import Arrays, Say, Status
from vconv.validators.accuracy.golden import AT_ONCE, Reference
from vconv.validators.accuracy.limits import UNLIMITED, Limits, Pair
from vconv.validators.accuracy.prediction import NOTHING_CHANGED, predict
from vconv.validators.accuracy.verdicts import judge_runs, overall
from vconv.validators.bisect.hypotheses import Explanation, FailedVariant, diagnose
from vconv.validators.latency.peak_memory import IN_PROCESS, ISOLATED, isolated, memory
from vconv.validators.latency.side_by_side import Runner, time_side_by_side
from vconv.validators.report import sentences
from vconv.validators.report.output_summary import summarise_outputs
from vconv.validators.report.saving import output_rows


@dataclass(frozen=True)
class Candidate:
    """One variant that is to be run and judged.

    Args:
        artifact: what it belongs to.
        variant: its name.
        engine: what runs it.
        precision: the precision that it is held to.
        device: where to run it.
        reference: what it is held against.
        open: loads it.
        subject: the same in plain data, for a process of its own.
        unjudged: why it is measured but not judged; empty if it is judged.
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

    @property
    def pair(self) -> Pair:
        """Its precision, and its engine's arithmetic on its device in that: what chooses its limit."""
        return self.precision, self.device.arithmetic_of(self.precision, self.engine)


@dataclass(frozen=True)
class RunResult:
    """What was found.

    Args:
        rows: one a variant, as the report has it.
        machine: what others took of the machine while variants were timed.
    """

    rows: list[dict[str, Any]]
    machine: Load


def _loaded(candidate: Candidate) -> tuple[Session, dict[str, Any]]:
    """Open a variant and run it once; tell how long both took."""
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
    # How long an imitation takes says nothing of what it imitates.
    timed_here = not candidate.device.simulated
    return session, {"load_ms": load_ms if timed_here else None, "first_ms": first_ms if timed_here else None}


NOT_LOOKED_AT = "not looked at"
"""Why a row lacks what is looked at beside judging: nobody did, or the variant could not be run."""
Beside = Callable[[Candidate, Session, Arrays], Mapping[str, Any]]
"""Looks at a variant beside judging it, given its outputs of all images; returns more keys of its row."""


def _accuracy(
    candidate: Candidate, session: Session, limits: Limits, beside: Iterable[Beside]
) -> dict[str, Any]:
    """Run a variant at its batches, one and many for a dynamic one, and judge the worst of them."""
    reference = candidate.reference
    images = reference.pixel_values
    batches = [session.batch] if session.batch else sorted({1, min(AT_ONCE, len(images))})
    runs: list[Arrays] = [in_batches(session.run, images, batch) for batch in batches]
    judged = not candidate.unjudged
    limit = limits.table[candidate.pair] if judged else UNLIMITED
    verdicts = judge_runs(runs, reference.outputs, limit)
    findings: list[Explanation] = []
    if judged and overall(verdicts) is Status.FAILED:
        run = partial(in_batches, session.run, batch=batches[0])
        # It has failed, whatever becomes of the search for what that comes of.
        with contextlib.suppress(EngineError):
            findings = diagnose(FailedVariant(run, runs[0], reference, verdicts, limit))
    rows = output_rows(verdicts, limit if judged else None, reference.floor, reference.to_stock_original)
    status = overall(verdicts)
    if not judged:
        status = Status.SKIPPED
        for row in rows.values():
            row["status"] = Status.SKIPPED
    return {
        "status": status,
        "reason": candidate.unjudged,
        "batches": batches,
        "outputs": rows,
        "diagnosis": [{"class": finding.fault, "because": finding.because} for finding in findings],
        "fallbacks": session.fallbacks,
        "smoke": summarise_outputs({name: array[:1] for name, array in runs[0].items()}, session.placed),
        **{key: value for look in beside for key, value in look(candidate, session, runs[0]).items()},
    }


def _launches(session: Session, reference: Reference) -> dict[str, Any] | None:
    """Count what a variant launches for one image; None where its engine does not let that be seen."""
    found = session.launches(reference.pixel_values[:1])
    return None if found is None else asdict(found)


def run(
    candidates: Sequence[Candidate],
    limits: Limits,
    plan: TimingPlan | None,
    say: Say,
    measurer: PeakMeasurer | None = None,
    beside: Sequence[Beside] = (),
) -> RunResult:
    """Judge variants and time them.

    Args:
        candidates: what to run.
        limits: what they are held to.
        plan: how much to time; None for not at all.
        say: takes progress.
        measurer: measures a variant's memory in a process of its own; it is closed before variants are timed.
            None for this process's memory, in which what other variants left is counted too.
        beside: what else to look at while a variant is open.
    """
    rows: list[dict[str, Any]] = []
    machine = UNTIMED
    runners: dict[int, Runner] = {}
    with contextlib.ExitStack() as closing:
        if measurer:
            measurer.ready()
        judged = ProgressMeter("variants judged", len(candidates), say)
        for candidate in candidates:
            simulated = ", simulated" * candidate.device.simulated
            say(f"{candidate.variant} ({candidate.engine}, {candidate.device.name}{simulated})")
            if rows:
                judged.add()  # the one before, once the line above does not hide it any more
            rows.append(_row(candidate))
            if measurer and not candidate.device.simulated:
                rows[-1] |= isolated(measurer.measure(candidate.subject))
            with contextlib.ExitStack() as one:
                session = _judged(candidate, limits, rows[-1], one, beside)
                if warning := sentences.fallbacks(rows[-1]):
                    say(f"warning: {warning}")
                if plan and session and not candidate.device.simulated:
                    images = candidate.reference.pixel_values
                    runners[len(rows) - 1] = Runner(session, candidate.device, images)
                    closing.push(one.pop_all())
            del session
        if measurer:
            measurer.close()
        if plan and runners:
            machine = time_side_by_side(runners, plan, say)
    for place, runner in runners.items():
        rows[place]["latency"] = [measurement.summary() for measurement in runner.measurements]
        rows[place]["skipped_batches"] = [
            {"batch": batch, "reason": reason} for batch, reason in runner.skipped.items()
        ]
        if runner.untimed:
            rows[place] |= {"timing_refused": runner.untimed, "load_ms": None, "first_ms": None}
        if runner.refusal:
            unjudged = rows[place]["status"] is Status.SKIPPED
            rows[place] |= {"status": _unless(unjudged), "reason": str(runner.refusal)}
    return RunResult(rows, machine)


def _judged(
    candidate: Candidate,
    limits: Limits,
    row: dict[str, Any],
    closing: contextlib.ExitStack,
    beside: Sequence[Beside],
) -> Session | None:
    """Open a variant, judge it, and put what was found into its row; None if it cannot be run."""
    isolated = row["peak_memory_is"] == ISOLATED
    before = resident_memory()[0] if not isolated and reset_peak_memory() else None
    try:
        session, costs = _loaded(candidate)
        closing.enter_context(session)
        row |= {**costs, **_accuracy(candidate, session, limits, beside), "gelu": session.gelu or None}
        row["launches"] = _launches(session, candidate.reference)
        if isinstance(session, Simulated):
            _predict(candidate, session, row)
        elif not isolated:
            row |= memory(before, None if before is None else resident_memory()[1], IN_PROCESS)
    except (UnavailableError, MemoryShortError) as error:
        row |= {"status": Status.SKIPPED, "reason": f"{error.what}: {error.got}"}
        return None
    except EngineError as error:
        row |= {"status": _unless(candidate.unjudged), "reason": str(error)}
        return None
    return session


def _predict(candidate: Candidate, session: Simulated, row: dict[str, Any]) -> None:
    """Put into a row what a simulated device predicts; what it changed nothing of has not passed."""
    arithmetic, reference = candidate.device.simulates, candidate.reference
    assert arithmetic is not None
    run = partial(in_batches, session.run, reference.pixel_values, row["batches"][-1])
    expected = reference.outputs if not candidate.unjudged else reference.stock or reference.outputs
    row["prediction"] = predict(session, run, expected, arithmetic)
    if not any(row["prediction"]["changed"].values()) and row["status"] is Status.PASSED:
        row |= {"status": Status.SKIPPED, "reason": NOTHING_CHANGED}


def _unless(unjudged: object) -> Status:
    """Return what becomes of a variant that an engine refuses: what is not judged cannot fail."""
    return Status.SKIPPED if unjudged else Status.FAILED


def _row(candidate: Candidate) -> dict[str, Any]:
    device = candidate.device
    return {
        "artifact": candidate.artifact,
        "variant": candidate.variant,
        "device": device.name,
        "engine": candidate.engine,
        "precision": candidate.precision,
        "arithmetic": candidate.pair[1],
        "simulated": device.simulated,
        "gelu": None,
        "prediction": None,
        "outputs": {},
        "diagnosis": [],
        "smoke": {},
        "depth": None,
        "depth_reason": NOT_LOOKED_AT,
        "patch_maps": None,
        "patch_maps_reason": NOT_LOOKED_AT,
        "launches": None,
        "fallbacks": None,
        "latency": [],
        "skipped_batches": [],
        "timing_refused": None,
        "peak_memory_is": None,
    }


def pairs_judged(rows: Iterable[Mapping[str, Any]]) -> set[Pair]:
    """Tell which limits were used: those of every variant that was judged."""
    return {(row["precision"], row["arithmetic"]) for row in rows if row["status"] is not Status.SKIPPED}


def worst_failures(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Say in a phrase each why variants did not pass: an artifact is kept only if each was judged."""
    failures = []
    for row in rows:
        if row["status"] is not Status.PASSED:
            reasons = [
                f"{name}: {output['reasons'][0]}"
                for name, output in row["outputs"].items()
                if "reasons" in output
            ]
            failures.append(f"{row['variant']} ({(reasons or [row['reason']])[0]})")
    return failures
