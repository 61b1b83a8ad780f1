from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from vconv.progress import Counted
from vconv.runtime.timing.clocks import (
    DEFAULT,
    FULL,
    LEAST_FOR,
    QUICK,
    Measurement,
    Task,
    TimingPlan,
    interleaved,
    timed,
)
from vconv.runtime.timing.statistics import LEAST_SAMPLES
from vconv.runtime.timing.warnings import warnings_about


@dataclass
class Clock:
    """A clock that moves only when it is told to."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> Callable[[], None]:
        """Return work that a synchronous device does at once."""

        def run() -> None:
            self.now += seconds

        return run


@dataclass
class Queue:
    """An asynchronous device: launching is quick, and the work is done when it is waited for."""

    clock: Clock
    pending: float = 0.0
    events: list[str] = field(default_factory=list)

    def launch(self, seconds: float, name: str = "run") -> Callable[[], None]:
        def run() -> None:
            self.events.append(name)
            self.clock.now += 0.001
            self.pending += seconds

        return run

    def task(self, seconds: float, name: str = "run") -> Task:
        return Task(1, self.launch(seconds, name), self.synchronize)

    def synchronize(self) -> None:
        self.events.append("wait")
        self.clock.now += self.pending
        self.pending = 0.0


def nothing() -> None:
    """Wait for no device."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(time, "perf_counter", fake)
    return fake


PLAN = TimingPlan(warmups=0, runs=5, budget_seconds=None)


def test_work_that_ends_after_its_launch_is_timed_in_full(clock: Clock) -> None:
    device = Queue(clock)
    assert timed(device.launch(5.0), device.synchronize) == pytest.approx(5.001)


def test_without_waiting_only_the_launch_would_be_timed(clock: Clock) -> None:
    device = Queue(clock)
    assert timed(device.launch(5.0), nothing) == pytest.approx(0.001)


def test_work_left_over_from_before_is_not_charged(clock: Clock) -> None:
    device = Queue(clock, pending=70.0)
    assert timed(device.launch(5.0), device.synchronize) == pytest.approx(5.001)


def test_every_sample_waits_for_the_device_before_and_after(clock: Clock) -> None:
    device = Queue(clock)
    interleaved({"a": device.task(1.0)}, replace(PLAN, warmups=2, runs=3))
    assert device.events == ["wait", "run", "wait"] * 5


def test_an_asynchronous_device_is_timed_in_full_in_every_round(clock: Clock) -> None:
    device = Queue(clock)
    tasks = {"slow": device.task(4.0), "fast": device.task(1.0)}
    found = interleaved(tasks, PLAN)
    assert found["slow"].seconds == pytest.approx([4.001] * 5)
    assert found["fast"].seconds == pytest.approx([1.001] * 5)


def rounds(runs: int, names: str = "abc") -> list[str]:
    """Time tasks; return who ran in each round, in order."""
    device = Queue(Clock())
    interleaved({name: device.task(1.0, name) for name in names}, replace(PLAN, runs=runs))
    ran = [event for event in device.events if event != "wait"]
    return ["".join(ran[start : start + len(names)]) for start in range(0, len(ran), len(names))]


def test_variants_take_turns() -> None:
    found = rounds(50)
    assert len(found) == 50
    assert {"".join(sorted(one)) for one in found} == {"abc"}


def test_no_variant_always_runs_after_the_same_one() -> None:
    found = rounds(300)
    orders = {order: found.count(order) for order in ("abc", "acb", "bac", "bca", "cab", "cba")}
    assert sum(orders.values()) == 300
    assert all(30 < count < 70 for count in orders.values())


def test_the_order_of_a_round_is_the_same_in_every_run() -> None:
    assert rounds(20) == rounds(20)


def test_every_task_waits_for_its_own_device(clock: Clock) -> None:
    first, second = Queue(clock), Queue(clock)
    found = interleaved({"a": first.task(4.0), "b": second.task(1.0)}, PLAN)
    assert first.events == second.events == ["wait", "run", "wait"] * 5
    assert found["a"].seconds == pytest.approx([4.001] * 5)
    assert found["b"].seconds == pytest.approx([1.001] * 5)


def test_tasks_go_by_any_name(clock: Clock) -> None:
    tasks = {7: Task(2, clock.work(1.0), nothing), ("b", 3): Task(4, clock.work(1.0), nothing)}
    assert {key: found.batch for key, found in interleaved(tasks, PLAN).items()} == {7: 2, ("b", 3): 4}


def test_drift_hits_all_variants_alike(clock: Clock) -> None:
    drift = iter(range(100))

    def run() -> None:
        clock.now += 1.0 + next(drift)

    found = interleaved({"a": Task(1, run, nothing), "b": Task(1, run, nothing)}, PLAN)
    assert abs(np.mean(found["b"].seconds) - np.mean(found["a"].seconds)) <= 1.0
    apart = np.array(found["b"].seconds) - np.array(found["a"].seconds)
    assert np.abs(apart) == pytest.approx(np.ones(5))


def test_warm_ups_are_run_and_not_counted(clock: Clock) -> None:
    durations = iter([50.0, 50.0, 50.0, 1.0, 2.0])

    def run() -> None:
        clock.now += next(durations)

    found = interleaved({"a": Task(1, run, nothing)}, replace(PLAN, warmups=3, runs=2))
    assert found["a"].seconds == pytest.approx([1.0, 2.0])


def test_the_budget_stops_a_slow_variant_and_not_the_others(clock: Clock) -> None:
    tasks = {"slow": Task(1, clock.work(10.0), nothing), "fast": Task(1, clock.work(0.1), nothing)}
    found = interleaved(tasks, replace(PLAN, runs=100, budget_seconds=35.0))
    assert len(found["slow"].seconds) == 3
    assert len(found["fast"].seconds) == 100


def test_the_sample_at_a_place_is_of_that_round_also_after_a_variant_has_sat_out(clock: Clock) -> None:
    # Each run takes its task's time and a round's own, which tells the rounds apart.
    lengths = {"slow": [3.0, 8.0, 1.0, 5.0, 2.0], "fast": [0.3, 0.8, 0.1, 0.5, 0.2]}
    left = {name: iter(seconds) for name, seconds in lengths.items()}

    def run(name: str) -> Callable[[], None]:
        def once() -> None:
            clock.now += next(left[name])

        return once

    tasks = {name: Task(1, run(name), nothing) for name in lengths}
    found = interleaved(tasks, replace(PLAN, runs=5, budget_seconds=18.0))
    assert found["slow"].seconds == pytest.approx(lengths["slow"][:2])
    assert found["fast"].seconds == pytest.approx(lengths["fast"])


def test_even_a_variant_that_exceeds_the_budget_at_once_is_timed_once(clock: Clock) -> None:
    found = interleaved({"a": Task(1, clock.work(500.0), nothing)}, replace(PLAN, budget_seconds=1.0))
    assert found["a"].seconds == pytest.approx([500.0])


def test_warm_ups_end_early_when_they_eat_into_the_budget(clock: Clock) -> None:
    device = Queue(clock)
    plan = TimingPlan(warmups=10, runs=1, budget_seconds=60.0)
    interleaved({"a": device.task(5.0)}, plan)
    assert device.events.count("run") == 3 + 1


@pytest.mark.parametrize(("warmed", "runs"), [(0.0, 3), (4.0, 2), (12.0, 1), (100.0, 1)])
def test_what_has_run_before_counts_as_warm_ups_but_for_the_last(
    clock: Clock, warmed: float, runs: int
) -> None:
    device = Queue(clock)
    plan = TimingPlan(warmups=10, runs=1, budget_seconds=60.0)
    interleaved({"a": replace(device.task(5.0), warmed=warmed)}, plan)
    assert device.events.count("run") == runs + 1


def test_without_a_budget_every_run_is_made(clock: Clock) -> None:
    found = interleaved({"a": Task(1, clock.work(1e6), nothing)}, replace(PLAN, runs=7))
    assert len(found["a"].seconds) == 7


def test_no_variants_give_no_measurements(clock: Clock) -> None:
    assert interleaved({}, PLAN) == {}


def test_a_measurement_knows_its_batch(clock: Clock) -> None:
    tasks = {"a": Task(1, clock.work(1.0), nothing), "b": Task(8, clock.work(1.0), nothing)}
    found = interleaved(tasks, PLAN)
    assert (found["a"].batch, found["b"].batch) == (1, 8)


@pytest.mark.parametrize("count", [2, 9, 10, 99, 100, 250])
@pytest.mark.parametrize("batch", [1, 8])
def test_statistics_are_those_of_the_standard_library(count: int, batch: int) -> None:
    seconds = tuple(np.random.default_rng(count).lognormal(-3, 0.5, count).tolist())
    summary = Measurement(batch, seconds).summary()
    interval, warnings = summary.pop("p50_ms_interval"), summary.pop("warnings")
    milliseconds = [1000 * sample for sample in seconds]
    hundredths = statistics.quantiles(milliseconds, n=100, method="inclusive")
    mean = statistics.fmean(milliseconds)
    expected = {
        "batch": batch,
        "runs": count,
        "mean_ms": mean,
        "std_ms": statistics.stdev(milliseconds),
        "min_ms": min(milliseconds),
        "max_ms": max(milliseconds),
        "p50_ms": statistics.median(milliseconds),
        "p90_ms": hundredths[89] if count >= 10 else None,
        "p99_ms": hundredths[98] if count >= 100 else None,
        "ms_per_image": statistics.median(milliseconds) / batch,
        "images_per_second": 1000 * batch / statistics.median(milliseconds),
    }
    assert summary.pop("samples_ms") == pytest.approx(milliseconds)
    assert summary == pytest.approx(expected)
    assert (interval is None) is (count < LEAST_SAMPLES)
    assert interval is None or interval[0] < summary["p50_ms"] < interval[1]
    assert warnings == warnings_about(seconds)


@pytest.mark.parametrize(
    ("count", "given"),
    [(1, []), (4, []), (9, []), (10, ["p90_ms"]), (99, ["p90_ms"]), (100, ["p90_ms", "p99_ms"])],
)
def test_a_percentile_is_given_only_if_a_sample_is_expected_beyond_it(count: int, given: list[str]) -> None:
    summary = Measurement(1, tuple(0.001 * (1 + index) for index in range(count))).summary()
    assert [key for key in ("p90_ms", "p99_ms") if summary[key] is not None] == given


def test_one_sample_has_no_standard_deviation() -> None:
    summary = Measurement(2, (0.004,)).summary()
    assert summary["std_ms"] is None
    assert (summary["mean_ms"], summary["images_per_second"]) == pytest.approx((4.0, 500.0))


def test_an_outlier_is_no_part_of_a_rate() -> None:
    summary = Measurement(2, (0.004, 0.004, 4.0)).summary()
    assert (summary["ms_per_image"], summary["images_per_second"]) == pytest.approx((2.0, 500.0))


@pytest.mark.parametrize(
    ("budget", "seconds", "expected"),
    [(None, 0.5, 110 * 0.5), (60.0, 0.1, 11.0), (60.0, 0.5, 55.0), (60.0, 10.0, 72.0), (20.0, 1.0, 24.0)],
)
def test_a_plan_tells_about_how_long_it_takes(budget: float | None, seconds: float, expected: float) -> None:
    assert TimingPlan(budget_seconds=budget).lasts(seconds) == pytest.approx(expected)


@pytest.mark.parametrize("plan", [QUICK, DEFAULT, FULL], ids=["quick", "default", "full"])
def test_every_plan_warms_up_and_times(plan: TimingPlan) -> None:
    assert plan.warmups > 0 and plan.runs > 0 and plan.batches
    assert plan.budget_seconds is None or plan.budget_seconds > 0


@pytest.mark.parametrize("plan", [DEFAULT, FULL], ids=["default", "full"])
def test_plans_that_are_no_glance_take_enough_samples_for_a_99th_percentile(plan: TimingPlan) -> None:
    assert plan.runs >= max(LEAST_FOR.values())


def test_progress_is_said_between_rounds_and_never_within_one(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vconv.progress.EVERY_SECONDS", 0)
    device, names, plan = Queue(clock), "abc", replace(PLAN, warmups=2, runs=6)
    said = []

    def say(line: str) -> None:
        said.append(line)
        device.events.append("say")

    interleaved({name: device.task(1.0, name) for name in names}, plan, say)
    sample = r"wait [abc] wait"
    warming, a_round = f"(?:{sample} ?){{{plan.warmups}}}", f"(?:{sample} ?){{{len(names)}}}"
    told = f"(?:{warming}say ){{2}}{warming}(?:{a_round}say ){{{plan.runs - 1}}}{a_round}"
    assert re.fullmatch(told, " ".join(device.events))
    assert [line.split(",")[0] for line in said] == [
        *("warmed up: 1 of 3", "warmed up: 2 of 3"),
        *(f"rounds timed: {done} of 6" for done in range(1, 6)),
    ]
    assert all(isinstance(line, Counted) for line in said)


def test_the_time_left_is_what_the_samples_and_the_budget_say(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vconv.progress.EVERY_SECONDS", 0)
    said: list[str] = []
    tasks = {
        "fast": Task(1, clock.work(1.0), nothing),
        "slow": Task(1, clock.work(4.0), nothing),
    }
    interleaved(tasks, replace(PLAN, warmups=0, runs=5, budget_seconds=10.0), said.append)
    left = [line.seconds_left for line in said if isinstance(line, Counted) and "rounds" in line]
    # fast: 4, 3, 2, 1 s; slow: the budget of 10 s less 4, 8 and, as it sits out from then on, 8 and 8.
    assert left == pytest.approx([4 + 6, 3 + 2, 2 + 2, 1 + 2])
