"""Latency of several variants side by side, at every batch that fits into memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from vconv.errors import EngineError, MemoryShortError
from vconv.runtime.devices.base import Device
from vconv.runtime.engines.base import Session
from vconv.runtime.timing import machine_load, synchronisation
from vconv.runtime.timing.clocks import Measurement, Task, TimingPlan, interleaved
from vconv.runtime.timing.machine_load import Load, busiest, watching
from vconv.types import Array, Say

SPARE = 0.9
"""A batch is timed only if it is expected to need at most this share of the free memory."""


@dataclass
class Runner:
    """One loaded variant that is timed, with the measurements so far.

    Args:
        session: the variant.
        device: where it runs.
        images: float32 (N, 3, H, W), repeated to fill a batch.
        measurements: one per batch.
        skipped: by batch, why it was not timed.
        refusal: the error that ended its timing; None if there was none.
        untimed: why none of its times are reliable; empty if they are.
        bytes_an_image: the most memory per image that any run has needed.
        seconds: the duration of the last trial run, to estimate how long timing will take.
    """

    session: Session
    device: Device
    images: Array
    measurements: list[Measurement] = field(default_factory=list)
    skipped: dict[int, str] = field(default_factory=dict)
    refusal: EngineError | None = None
    untimed: str = ""
    bytes_an_image: float = 0.0
    seconds: float = 0.0

    def takes(self, batch: int, plan: TimingPlan) -> bool:
        """Return whether the variant is to be timed at this batch."""
        fixed = self.session.batch
        return (
            self.refusal is None
            and not self.untimed
            and (batch in plan.batches if fixed is None else batch == fixed)
        )

    def lacks_memory(self, batch: int) -> bool:
        """Return whether a batch does not fit into memory, estimated from smaller ones; record it if so."""
        need, free = self.bytes_an_image * batch, self.device.free_bytes()
        if need > SPARE * free:
            self.skipped[batch] = f"needs about {need / 1e9:.2f} GB, {free / 1e9:.2f} GB are free"
        return batch in self.skipped

    def prepare(self, batch: int) -> Callable[[], object] | None:
        """Bind a batch and run it once, to measure its memory and to check that its end can be waited for.

        Returns:
            A function that runs it; None if it cannot be run, or if its times would not be reliable.
        """
        feed = np.ascontiguousarray(np.resize(self.images, (batch, *self.images.shape[1:])))
        try:
            forward = self.session.bind(feed)
            start = time.perf_counter()
            self.bytes_an_image = max(self.bytes_an_image, self.device.growth(forward) / batch)
            self.seconds = time.perf_counter() - start
            early = synchronisation.comes_back_early(forward, self.session.fetch, self.device.synchronize)
        except MemoryShortError as error:
            self.skipped[batch] = error.got
        except EngineError as error:
            self.refusal = error
        else:
            if not early:
                return forward
            self.untimed = synchronisation.REASON
            self.measurements.clear()
        return None

    def tolerant(self, batch: int, forward: Callable[[], object]) -> Callable[[], None]:
        """Return a function that runs a bound batch, and that does nothing after its first failure."""

        def attempt() -> None:
            if self.refusal is None and batch not in self.skipped:
                try:
                    forward()
                except MemoryShortError as error:
                    self.skipped[batch] = error.got
                except EngineError as error:
                    self.refusal = error

        return attempt


def time_side_by_side(runners: Mapping[int, Runner], plan: TimingPlan, say: Say) -> Load:
    """Time variants in turn at each batch of a plan; static variants only at their fixed batch.

    The results are stored in the runners. A batch is skipped, with the reason, if the memory of smaller
    batches shows that it will not fit.

    Returns:
        The load of other processes on the machine, at the batch at which it was greatest.
    """
    parts: list[Load] = []
    with watching(machine_load.read_counters) as whole:
        _time_batches(runners, plan, say, parts)
    return busiest(whole.load, parts)


def _time_batches(runners: Mapping[int, Runner], plan: TimingPlan, say: Say, parts: list[Load]) -> None:
    own = {runner.session.batch for runner in runners.values() if runner.session.batch}
    for batch in sorted({*plan.batches, *own}):
        tasks = {}
        for key, runner in runners.items():
            if not runner.takes(batch, plan) or runner.lacks_memory(batch):
                continue
            forward = runner.prepare(batch)
            if forward is not None:
                tasks[key] = Task(
                    batch, runner.tolerant(batch, forward), runner.device.synchronize, runner.seconds
                )
        if tasks:
            seconds = sum(plan.lasts(runners[key].seconds) for key in tasks)
            say(f"timing {len(tasks)} variants in turn at batch {batch}, for about {seconds:.0f} s")
        with watching(machine_load.read_counters) as part:
            measurements = interleaved(tasks, plan, say)
        parts.append(part.load)
        for key, measurement in measurements.items():
            if runners[key].refusal is None and batch not in runners[key].skipped:
                runners[key].measurements.append(measurement)
