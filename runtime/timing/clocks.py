"""Clocks: raw samples of how long a variant takes, with a wait for the device before and after each run."""

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

LEAST_FOR = {90: 10, 99: 100}
"""By percentile p: the least number of samples for it, 100 / (100 - p). With fewer, less than one sample is
expected above it, so that it would only be the maximum, and it is not reported."""
WARMING_SHARE = 0.2
"""The share of a budget that warm-ups may take, in addition to the budget."""
_ORDER_SEED = 0

Key = TypeVar("Key")


@dataclass(frozen=True)
class TimingPlan:
    """How much to measure.

    Args:
        batches: images per run, with one measurement per batch; a static graph is timed at its own batch.
        warmups: the number of runs that are not counted.
        runs: the number of counted runs.
        budget_seconds: the time that one variant's counted runs may take at one batch. Its warm-ups may take
            :data:`WARMING_SHARE` of this time in addition. None for no limit.
    """

    batches: tuple[int, ...] = (1,)
    warmups: int = 10
    runs: int = 100
    budget_seconds: float | None = 60.0

    def lasts(self, seconds: float) -> float:
        """Estimate the seconds that a measurement takes, from the seconds that one run takes."""
        counted, warming = self.runs * seconds, self.warmups * seconds
        if self.budget_seconds is None:
            return counted + warming
        return min(counted, self.budget_seconds) + min(warming, self.budget_seconds * WARMING_SHARE)

    def left(self, taken: Sequence[float]) -> float:
        """Estimate the seconds that the remaining counted runs take, from the samples so far."""
        rest = (self.runs - len(taken)) * sum(taken) / len(taken)
        return rest if self.budget_seconds is None else max(0.0, min(rest, self.budget_seconds - sum(taken)))


QUICK = TimingPlan(warmups=2, runs=10, budget_seconds=20.0)
"""A quick run (``--quick``)."""
DEFAULT = TimingPlan()
FULL = TimingPlan(batches=(1, 2, 4, 8, 16), budget_seconds=None)
"""A full run, without a time limit."""


@dataclass(frozen=True)
class Measurement:
    """How long one variant took at one batch.

    Args:
        batch: images per run.
        seconds: one sample per run, in order; the sample at index r was taken in round r.
    """

    batch: int
    seconds: tuple[float, ...]

    def summary(self) -> dict[str, Any]:
        """Return the statistics, in milliseconds per batch, with the samples and warnings about them.

        A percentile is None under the samples of :data:`LEAST_FOR`. The interval of the median is None under
        :data:`vconv.runtime.timing.statistics.LEAST_SAMPLES`. Milliseconds per image and images per second
        are computed from the median, so that outliers do not change a rate.
        """
        samples = np.array(self.seconds) * 1e3
        p50 = float(np.median(samples))
        tails = {
            f"p{p}_ms": float(np.percentile(samples, p)) if len(samples) >= least else None
            for p, least in LEAST_FOR.items()
        }
        interval = median_interval(samples.tolist())
        return {
            "batch": self.batch,
            "runs": len(samples),
            "mean_ms": float(samples.mean()),
            "std_ms": float(samples.std(ddof=1)) if len(samples) > 1 else None,
            "min_ms": float(samples.min()),
            "max_ms": float(samples.max()),
            "p50_ms": p50,
            "p50_ms_interval": list(interval) if interval else None,
            **tails,
            "ms_per_image": p50 / self.batch,
            "images_per_second": self.batch * 1e3 / p50,
            "warnings": warnings_about(self.seconds),
            "samples_ms": samples.tolist(),
        }


def timed(run: Callable[[], Any], synchronize: Callable[[], None]) -> float:
    """Return the seconds that one run takes; the device is idle at its start and at its end."""
    synchronize()
    start = time.perf_counter()
    run()
    synchronize()
    return time.perf_counter() - start


@dataclass(frozen=True)
class Task:
    """A run to be timed.

    Args:
        batch: images per run.
        run: runs one batch, whose inputs are on the device already.
        synchronize: waits for the device.
        warmed: the seconds that it has run before, which count as warm-ups; one more always follows.
    """

    batch: int
    run: Callable[[], Any]
    synchronize: Callable[[], None]
    warmed: float = 0.0

    def seconds(self) -> float:
        """Run once; return the seconds that the run took."""
        return timed(self.run, self.synchronize)


def interleaved(tasks: Mapping[Key, Task], plan: TimingPlan, say: Say = silent) -> dict[Key, Measurement]:
    """Time tasks in rounds, so that any drift of the machine affects all tasks alike.

    Each round runs the tasks in a different order, drawn from a fixed seed. So no task always starts with the
    caches and the clock frequency that one and the same task left.

    Args:
        tasks: the tasks to time, by any key.
        plan: how much to measure; a task that has used up its budget skips the remaining rounds.
        say: receives progress lines between the rounds. During a round, only the tasks use the machine.

    Returns:
        One measurement per task, with at least one sample. A task that skips a round skips all later rounds,
        so the sample at index r of any task is from round r, and samples can be paired by index.
    """
    for task in counted(tasks.values(), len(tasks), "warmed up", say):
        spent = task.warmed
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
