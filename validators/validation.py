"""A validation, in a straight line: each variant is opened, held against the reference, and timed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vconv.errors import EngineError
from vconv.runtime.devices import Device, reset_peak_memory, resident_memory
from vconv.runtime.sessions import Session, in_batches
from vconv.runtime.timing import Measurement, Plan, interleaved, timed
from vconv.types import Array, Say, Status
from vconv.validators.accuracy import judge_runs, overall
from vconv.validators.golden import Golden
from vconv.validators.limits import UNLIMITED, find_limit
from vconv.validators.report import output_rows


@dataclass(frozen=True)
class Candidate:
    """One variant that is to be run and judged.

    Args:
        variant: its name.
        engine: what runs it.
        precision: the precision that it is held to.
        open: loads it.
        unjudged: why it is measured but not judged; empty if it is judged.
    """

    variant: str
    engine: str
    precision: str
    open: Callable[[], Session]
    unjudged: str = ""


def _loaded(candidate: Candidate, device: Device, pixel_values: Array) -> tuple[Session, dict[str, Any]]:
    """Open a variant and run it once; tell how long both took."""
    start = time.perf_counter()
    session = candidate.open()
    device.synchronize()
    load_ms = 1e3 * (time.perf_counter() - start)
    try:
        run = session.bind(np.repeat(pixel_values[:1], session.batch or 1, axis=0))
        first_ms = 1e3 * timed(run, device.synchronize)
    except BaseException:
        session.close()
        raise
    return session, {"load_ms": load_ms, "first_ms": first_ms}


def _memory(before: int | None) -> dict[str, int | None]:
    """Tell this process's peak memory since it was reset, and by how much that is more than before."""
    if before is None:
        return {"peak_rss_bytes": None, "peak_rss_growth_bytes": None}
    peak = resident_memory()[1]
    return {"peak_rss_bytes": peak, "peak_rss_growth_bytes": max(0, peak - before)}


def _accuracy(
    candidate: Candidate, session: Session, device: Device, golden: Golden, level: str
) -> dict[str, Any]:
    """Run a variant at its batches, one and all for a dynamic one, and judge the worst of them."""
    images = golden.pixel_values
    batches = [session.batch] if session.batch else sorted({1, len(images)})
    runs = [in_batches(session.run, images, batch) for batch in batches]
    judged = not candidate.unjudged
    limit = find_limit(level, candidate.precision, device.arithmetic) if judged else UNLIMITED
    verdicts = judge_runs(runs, golden.outputs, limit)
    rows = output_rows(verdicts, limit if judged else None, golden.floor, golden.to_stock_original)
    status = overall(verdicts)
    if not judged and status is Status.PASSED:
        status = Status.SKIPPED
        for row in rows.values():
            row["status"] = Status.SKIPPED
    return {"status": status, "reason": candidate.unjudged, "batches": batches, "outputs": rows}


def _latency(
    sessions: Mapping[int, Session], device: Device, images: Array, plan: Plan
) -> tuple[dict[int, list[Measurement]], dict[int, EngineError]]:
    """Time variants side by side at each batch, a static one at its own; tell which refused a batch."""
    own = {session.batch for session in sessions.values() if session.batch}
    found: dict[int, list[Measurement]] = {place: [] for place in sessions}
    refused: dict[int, EngineError] = {}
    for batch in sorted({*plan.batches, *own}):
        feed = np.ascontiguousarray(np.resize(images, (batch, *images.shape[1:])))
        tasks = {
            place: (batch, _tolerant(session, feed, place, refused))
            for place, session in sessions.items()
            if session.batch == batch or (session.batch is None and batch in plan.batches)
        }
        for place, measurement in interleaved(tasks, plan, device.synchronize).items():
            if place not in refused:
                found[place].append(measurement)
    return found, refused


def _tolerant(
    session: Session, feed: Array, place: int, refused: dict[int, EngineError]
) -> Callable[[], object]:
    """Bind a batch; once its engine has refused, do nothing, so that the other variants are timed on."""
    forward: Callable[[], object] | None = None
    try:
        forward = session.bind(feed)
    except EngineError as error:
        refused[place] = error

    def attempt() -> None:
        if place in refused or forward is None:
            return
        try:
            forward()
        except EngineError as error:
            refused[place] = error

    return attempt


def run(
    candidates: Iterable[Candidate], golden: Golden, device: Device, level: str, plan: Plan | None, say: Say
) -> list[dict[str, Any]]:
    """Judge variants and time them.

    Args:
        candidates: what to run.
        golden: the reference's inputs and outputs.
        device: where to run.
        level: name of the limits.
        plan: how much to time; None for not at all.
        say: takes progress.

    Returns:
        One row a variant, as the report has it.
    """
    rows: list[dict[str, Any]] = []
    sessions: dict[int, Session] = {}
    with contextlib.ExitStack() as closing:
        for candidate in candidates:
            say(f"{candidate.variant} ({candidate.engine}, {device.name})")
            row: dict[str, Any] = {
                "variant": candidate.variant,
                "device": device.name,
                "engine": candidate.engine,
                "precision": candidate.precision,
                "simulated": device.simulated,
            }
            rows.append(row)
            before = resident_memory()[0] if reset_peak_memory() else None
            with contextlib.ExitStack() as one:
                try:
                    session, costs = _loaded(candidate, device, golden.pixel_values)
                    one.enter_context(session)
                    row |= {**costs, **_accuracy(candidate, session, device, golden, level), "latency": []}
                    row |= _memory(before)
                except EngineError as error:
                    row |= {"status": Status.FAILED, "reason": str(error), "outputs": {}, "latency": []}
                    continue
                if plan:
                    sessions[len(rows) - 1] = session
                    closing.push(one.pop_all())
        if plan and sessions:
            say(f"timing {len(sessions)} variants in turn")
            timings, refused = _latency(sessions, device, golden.pixel_values, plan)
            for place, measurements in timings.items():
                rows[place]["latency"] = [measurement.summary() for measurement in measurements]
            for place, refusal in refused.items():
                rows[place] |= {"status": Status.FAILED, "reason": str(refusal)}
    return rows


def worst_failures(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Say in a phrase each why variants failed."""
    failures = []
    for row in rows:
        if row["status"] is Status.FAILED:
            reasons = [
                f"{name}: {output['reasons'][0]}"
                for name, output in row["outputs"].items()
                if "reasons" in output
            ]
            failures.append(f"{row['variant']} ({(reasons or [row['reason']])[0]})")
    return failures
