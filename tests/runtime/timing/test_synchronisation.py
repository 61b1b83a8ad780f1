from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from vconv.runtime.timing.clocks import timed
from vconv.runtime.timing.synchronisation import ATTEMPTS, EARLY_SECONDS, EARLY_SHARE, comes_back_early


@dataclass
class Clock:
    """A clock that moves only when it is told to."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(time, "perf_counter", fake)
    return fake


@dataclass
class Asynchronous:
    """A device whose work is done when somebody waits for it; reading waits as well, and copies.

    Args:
        clock: what it takes its time on.
        work: seconds a run.
        copy: seconds that reading takes.
        hurdles: seconds by which the first readings are interrupted.
    """

    clock: Clock
    work: float = 5.0
    copy: float = 1.0
    hurdles: list[float] = field(default_factory=list)
    pending: float = 0.0
    runs: int = 0

    def forward(self) -> str:
        self.runs += 1
        self.clock.now += 0.001
        self.pending += self.work
        return "on the device"

    def wait(self) -> None:
        self.clock.now += self.pending
        self.pending = 0.0

    def wait_for_half(self) -> None:
        self.clock.now += self.pending / 2
        self.pending /= 2

    def fetch(self, raw: str) -> None:
        assert raw == "on the device"
        self.wait()
        self.clock.now += self.copy + (self.hurdles.pop() if self.hurdles else 0.0)

    def early(self, synchronize: Callable[[], None]) -> bool:
        return comes_back_early(self.forward, self.fetch, synchronize)


def nothing() -> None:
    """Wait for no device."""


def test_a_device_whose_synchronise_does_nothing_is_caught(clock: Clock) -> None:
    assert Asynchronous(clock).early(nothing)


def test_the_same_device_with_a_right_synchronise_is_not(clock: Clock) -> None:
    device = Asynchronous(clock)
    assert not device.early(device.wait)
    assert device.runs == 1


def test_with_a_right_synchronise_the_whole_time_is_measured(clock: Clock) -> None:
    device = Asynchronous(clock)
    assert timed(device.forward, device.wait) == pytest.approx(5.001)
    assert timed(device.forward, nothing) == pytest.approx(0.001)


def test_a_device_that_waits_for_a_part_is_caught(clock: Clock) -> None:
    device = Asynchronous(clock)
    assert device.early(device.wait_for_half)


@pytest.mark.parametrize("copy", [0.0, 1.0, 500.0])
def test_what_a_copy_costs_decides_nothing(copy: float, clock: Clock) -> None:
    device = Asynchronous(clock, copy=copy)
    assert not device.early(device.wait)
    assert device.early(nothing)


def test_a_reader_that_is_interrupted_now_and_then_proves_nothing(clock: Clock) -> None:
    # Readings come in pairs: the first of each is interrupted, until the last attempt.
    device = Asynchronous(clock, hurdles=[0.0, 9.0] * (ATTEMPTS - 1))
    assert not device.early(device.wait)
    assert device.runs == ATTEMPTS


@pytest.mark.parametrize(("late", "early"), [(0.9, False), (1.1, True)])
@pytest.mark.parametrize("work", [5.0, 1e-4])
def test_a_first_reader_may_take_a_little_longer(work: float, late: float, early: bool, clock: Clock) -> None:
    # late / (late + work + launch) = EARLY_SHARE, for a long run; EARLY_SECONDS for a short one.
    most = max(EARLY_SECONDS, EARLY_SHARE / (1 - EARLY_SHARE) * (work + 0.001))
    device = Asynchronous(clock, work=work, hurdles=[0.0, late * most] * ATTEMPTS)
    assert device.early(device.wait) is early


def test_work_in_a_thread_that_only_reading_waits_for_is_caught(clock: Clock) -> None:
    begun, done = threading.Event(), threading.Event()

    def work() -> None:
        begun.wait()
        clock.now += 5.0
        done.set()

    def forward() -> threading.Thread:
        begun.clear()
        done.clear()
        thread = threading.Thread(target=work)
        thread.start()
        return thread

    def fetch(thread: threading.Thread) -> None:
        begun.set()
        thread.join()

    def synchronize() -> None:
        begun.set()
        done.wait()

    assert comes_back_early(forward, fetch, nothing)
    assert not comes_back_early(forward, fetch, synchronize)
