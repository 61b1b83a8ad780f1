"""Clocks: raw samples of how long a variant takes, with every device waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from vconv.progress import counted
from vconv.runtime.timing.statistics import median_interval
from vconv.runtime.timing.warnings import warnings_about
from vconv.types import Say, silent

PERCENTILES_NEED = 100
"""Samples under which a 99th percentile would be no more than the maximum, and is withheld."""
WARMING_SHARE = 0.2
"""Part of a budget that warm-ups may take."""
_ORDER_SEED = 0

Key = TypeVar("Key")


@dataclass(frozen=True)
class TimingPlan:
    """How much to measure.

    Args:
        batches: images a run, one measurement each; a static graph is timed at its own.
        warmups: runs that are not counted.
        runs: runs that are.
        budget_seconds: what one variant's counted runs may take at one batch, and of which its warm-ups may
            take :data:`WARMING_SHARE` besides; None for no limit.
    """

    batches: tuple[int, ...] = (1,)
    warmups: int = 10
    runs: int = 100
    budget_seconds: float | None = 60.0

    def lasts(self, seconds: float) -> float:
        """Return about how many seconds it takes to measure what takes so many a run."""
        counted, warming = self.runs * seconds, self.warmups * seconds
        if self.budget_seconds is None:
            return counted + warming
        return min(counted, self.budget_seconds) + min(warming, self.budget_seconds * WARMING_SHARE)

    def left(self, taken: Sequence[float]) -> float:
        """Return about how many seconds the rest of the counted runs takes, after the samples so far."""
        rest = (self.runs - len(taken)) * sum(taken) / len(taken)
        return rest if self.budget_seconds is None else max(0.0, min(rest, self.budget_seconds - sum(taken)))


QUICK = TimingPlan(warmups=2, runs=10, budget_seconds=20.0)
"""A glance."""
DEFAULT = TimingPlan()
FULL = TimingPlan(batches=(1, 2, 4, 8, 16), budget_seconds=None)
"""Everything, however long it takes."""


@dataclass(frozen=True)
class Measurement:
    """How long one variant took at one batch.

    Args:
        batch: images a run.
        seconds: one sample a run, in order; the one at place r was taken in round r.
    """

    batch: int
    seconds: tuple[float, ...]

    def summary(self) -> dict[str, Any]:
        """Return the statistics, in milliseconds a batch, with the samples and what speaks against them.

        p99 is None under 100 samples, and so is the interval of the median under
        :data:`vconv.runtime.timing.statistics.LEAST_SAMPLES`. Milliseconds an image and images a second are
        the median's: an outlier is no part of a rate.
        """
        samples = np.array(self.seconds) * 1e3
        p50, p90, p99 = np.percentile(samples, [50, 90, 99])
        interval = median_interval(samples.tolist())
        return {
            "batch": self.batch,
            "runs": len(samples),
            "mean_ms": float(samples.mean()),
            "std_ms": float(samples.std(ddof=1)) if len(samples) > 1 else None,
            "min_ms": float(samples.min()),
            "max_ms": float(samples.max()),
            "p50_ms": float(p50),
            "p50_ms_interval": list(interval) if interval else None,
            "p90_ms": float(p90),
            "p99_ms": float(p99) if len(samples) >= PERCENTILES_NEED else None,
            "ms_per_image": float(p50) / self.batch,
            "images_per_second": self.batch * 1e3 / float(p50),
            "warnings": warnings_about(self.seconds),
            "samples_ms": samples.tolist(),
        }


def timed(run: Callable[[], Any], synchronize: Callable[[], None]) -> float:
    """Return the seconds that one run takes, from an idle device to an idle device."""
    synchronize()
    start = time.perf_counter()
    run()
    synchronize()
    return time.perf_counter() - start


@dataclass(frozen=True)
class Task:
    """Something to be timed.

    Args:
        batch: images a run.
        run: runs it; its inputs are on the device already.
        synchronize: waits for its device.
    """

    batch: int
    run: Callable[[], Any]
    synchronize: Callable[[], None]

    def seconds(self) -> float:
        """Run once; return how long it took."""
        return timed(self.run, self.synchronize)


def interleaved(tasks: Mapping[Key, Task], plan: TimingPlan, say: Say = silent) -> dict[Key, Measurement]:
    """Time tasks in rounds, so that whatever drifts on the machine hits all of them alike.

    Each round takes the tasks in another order, drawn from a fixed seed: none always inherits the caches and
    the clock frequency that the same other one left.

    Args:
        tasks: what to time, by any name.
        plan: how much to measure; a variant that has used up its budget sits out the remaining rounds.
        say: takes progress, between the rounds: within one, nothing but the tasks has the machine.

    Returns:
        One measurement a task, with at least one sample. Nobody comes back after sitting out, so that the
        sample at place r of any task is of round r, and samples can be paired by their places.
    """
    for task in counted(tasks.values(), len(tasks), "warmed up", say):
        spent = 0.0
        for _ in range(plan.warmups):
            spent += task.seconds()
            if plan.budget_seconds is not None and spent > plan.budget_seconds * WARMING_SHARE:
                break
    samples: dict[Key, list[float]] = {name: [] for name in tasks}
    names, order = list(tasks), np.random.default_rng(_ORDER_SEED)

    def left() -> float:
        return sum(map(plan.left, samples.values()))

    for _ in counted(range(plan.runs), plan.runs, "rounds timed", say, left=left):
        for place in order.permutation(len(names)):
            taken = samples[names[place]]
            if plan.budget_seconds is None or not taken or sum(taken) + taken[-1] <= plan.budget_seconds:
                taken.append(tasks[names[place]].seconds())
    return {name: Measurement(tasks[name].batch, tuple(taken)) for name, taken in samples.items()}
