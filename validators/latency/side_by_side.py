"""Latency of several variants side by side, at every batch that there is memory for."""

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
"""Share of the free memory that a batch may be expected to take."""


@dataclass
class Runner:
    """One loaded variant that is timed, and what has been found so far.

    Args:
        session: the variant.
        device: where it runs.
        images: float32 (N, 3, H, W), repeated to fill a batch.
        measurements: one a batch.
        skipped: by batch, why it was not timed.
        refusal: what ended it; None if nothing did.
        untimed: why no time of it can be believed; empty if that is not so.
        bytes_an_image: the most that a run has been seen to take.
        seconds: what the last trial run took, to tell about how long timing will.
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
        """Tell whether a batch is one of its own."""
        fixed = self.session.batch
        return (
            self.refusal is None
            and not self.untimed
            and (batch in plan.batches if fixed is None else batch == fixed)
        )

    def lacks_memory(self, batch: int) -> bool:
        """Note that a batch needs more memory than there is, by what smaller ones took."""
        need, free = self.bytes_an_image * batch, self.device.free_bytes()
        if need > SPARE * free:
            self.skipped[batch] = f"needs about {need / 1e9:.2f} GB, {free / 1e9:.2f} GB are free"
        return batch in self.skipped

    def prepare(self, batch: int) -> Callable[[], object] | None:
        """Bind a batch and run it, to see what memory it takes and whether it can be waited for.

        Returns:
            What runs it; None if it cannot be run, or if no time of it could be believed.
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
        """Return what runs a bound batch, and does nothing any more once it could not be run."""

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
    """Time variants in turn at each batch of a plan, and static ones at their own.

    What is found is left in each runner. A batch is skipped, with the reason, where the memory that smaller
    batches took says that it will not fit.

    Returns:
        What others took of the machine meanwhile, at the batch at which that was most.
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
                tasks[key] = Task(batch, runner.tolerant(batch, forward), runner.device.synchronize)
        if tasks:
            seconds = sum(plan.lasts(runners[key].seconds) for key in tasks)
            say(f"timing {len(tasks)} variants in turn at batch {batch}, for about {seconds:.0f} s")
        with watching(machine_load.read_counters) as part:
            measurements = interleaved(tasks, plan, say)
        parts.append(part.load)
        for key, measurement in measurements.items():
            if runners[key].refusal is None and batch not in runners[key].skipped:
                runners[key].measurements.append(measurement)
