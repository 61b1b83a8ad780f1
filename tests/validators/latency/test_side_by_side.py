from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vconv.errors import EngineError, MemoryShortError
from vconv.runtime.devices.base import Device
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.base import Session
from vconv.runtime.timing import machine_load as machine_room
from vconv.runtime.timing import synchronisation
from vconv.runtime.timing.clocks import TimingPlan
from vconv.runtime.timing.machine_load import CounterReading
from vconv.types import Array, silent
from vconv.validators.latency.side_by_side import SPARE, Runner, time_side_by_side

PLAN = TimingPlan(batches=(1, 2, 4, 8), warmups=1, runs=3, budget_seconds=None)


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that moves by a second whenever it is looked at, so that no run depends on this machine."""
    monkeypatch.setattr(time, "perf_counter", itertools.count(0.0, 1.0).__next__)


def refusal(kind: type[EngineError] = EngineError) -> EngineError:
    return kind("it refuses", got="too much", expected="less", fix="a smaller batch")


@dataclass
class Machine:
    """An accelerator whose memory is known: a run takes ``fixed`` and so much an image."""

    free: int = 10**12
    fixed: int = 0
    an_image: int = 0
    log: list[str] = field(default_factory=list)
    batch: int = 0

    def device(self) -> Device:
        return replace(
            find_device("cpu"),
            name="cuda:1",
            synchronize=lambda: self.log.append("wait"),
            free_bytes=lambda: self.free,
            growth=self.growth,
        )

    def growth(self, run: Callable[[], object]) -> int:
        self.log.append("measure")
        run()
        return self.fixed + self.an_image * self.batch


class StandIn(Session):
    """A session that notes what it runs, and fails at chosen runs of chosen batches.

    ``fails`` is by (batch, how many runs of that batch went before), -1 for when it is bound.
    """

    engine = "stand-in"

    def __init__(
        self,
        machine: Machine,
        name: str = "it",
        batch: int | None = None,
        fails: dict[tuple[int, int], BaseException] | None = None,
    ) -> None:
        super().__init__(Path("nowhere"), (2, 2), batch)
        self.machine, self.name, self.fails = machine, name, fails or {}
        self.fed: list[Array] = []

    def bind(self, pixel_values: Array) -> Callable[[], Any]:
        self.fed.append(pixel_values)
        size, runs = len(pixel_values), iter(range(1000))
        self._fail(size, -1)

        def forward() -> None:
            self.machine.batch = size
            self.machine.log.append(f"{self.name} {size}")
            self._fail(size, next(runs))

        return forward

    def _fail(self, size: int, place: int) -> None:
        if (size, place) in self.fails:
            raise self.fails[size, place]

    def fetch(self, raw: Any) -> dict[str, Array]:
        self.machine.log.append("read")
        return {}


IMAGES = np.arange(3 * 3 * 4, dtype=np.float32).reshape(3, 3, 2, 2)


def runner(machine: Machine, **settings: Any) -> Runner:
    return Runner(StandIn(machine, **settings), machine.device(), IMAGES)


def timed(*runners: Runner, plan: TimingPlan = PLAN) -> list[list[int]]:
    """Time runners; return the batches that each was timed at."""
    time_side_by_side(dict(enumerate(runners)), plan, silent)
    return [[measurement.batch for measurement in one.measurements] for one in runners]


def test_a_dynamic_variant_is_timed_at_every_batch_of_the_plan_in_order() -> None:
    one = runner(Machine())
    assert timed(one, plan=replace(PLAN, batches=(8, 1, 4))) == [[1, 4, 8]]
    assert [len(measurement.seconds) for measurement in one.measurements] == [3, 3, 3]
    assert (one.skipped, one.refusal) == ({}, None)


@pytest.mark.parametrize("batch", [1, 2, 3, 16])
def test_a_static_graph_is_timed_at_its_own_batch_alone(batch: int) -> None:
    machine = Machine()
    static, dynamic = runner(machine, name="static", batch=batch), runner(machine, name="dynamic")
    assert timed(static, dynamic) == [[batch], [1, 2, 4, 8]]
    assert {len(feed) for feed in static.session.fed} == {batch}  # type: ignore[attr-defined]
    assert static.skipped == {}


def test_a_batch_is_filled_with_the_images_over_and_over() -> None:
    one = runner(Machine())
    timed(one, plan=replace(PLAN, batches=(1, 8)))
    first, second = one.session.fed  # type: ignore[attr-defined]
    assert np.array_equal(first, IMAGES[:1])
    assert np.array_equal(second, IMAGES[[0, 1, 2, 0, 1, 2, 0, 1]])
    assert second.flags.c_contiguous and second.dtype == np.float32


def test_variants_take_turns_at_each_batch() -> None:
    machine = Machine()
    timed(*(runner(machine, name=name) for name in "abc"), plan=replace(PLAN, batches=(1, 4), warmups=0))
    ran = [line for line in machine.log if line not in ("wait", "measure", "read")]
    for batch, part in ((1, ran[: len(ran) // 2]), (4, ran[len(ran) // 2 :])):
        for start in (-9, -6, -3):
            assert sorted(part[start : start + 3 or None]) == [f"{name} {batch}" for name in "abc"]


def test_every_timed_run_waits_for_its_own_device() -> None:
    first, second = Machine(), Machine()
    timed(runner(first), runner(second), plan=replace(PLAN, batches=(2,)))
    for machine in (first, second):
        checked = ["it 2", "wait", "read", "read"]
        assert machine.log == ["measure", "it 2", *checked, *["wait", "it 2", "wait"] * 4]


def test_a_batch_for_which_memory_will_not_suffice_is_skipped_unrun() -> None:
    machine = Machine(free=1000, an_image=200)
    one = runner(machine)
    assert timed(one) == [[1, 2, 4]]
    assert set(one.skipped) == {8}
    assert "it 8" not in machine.log
    assert [len(feed) for feed in one.session.fed] == [1, 2, 4]  # type: ignore[attr-defined]
    assert one.refusal is None


def test_the_reason_of_a_skip_has_what_it_needs_and_what_is_free() -> None:
    one = runner(Machine(free=5 * 10**9, an_image=10**9))
    timed(one)
    assert one.skipped == {8: "needs about 8.00 GB, 5.00 GB are free"}


@pytest.mark.parametrize(("free", "last"), [(int(800 / SPARE) + 1, 8), (int(800 / SPARE) - 1, 4)])
def test_some_of_the_free_memory_is_left_alone(free: int, last: int) -> None:
    assert timed(runner(Machine(free=free, an_image=100)))[0][-1] == last


def test_the_greatest_need_that_was_seen_decides() -> None:
    one = runner(Machine(free=2000, fixed=150, an_image=100))
    timed(one)
    assert one.bytes_an_image == 250
    assert set(one.skipped) == {8}


def test_memory_that_was_freed_meanwhile_counts() -> None:
    machine = Machine(free=100, an_image=50)
    one = runner(machine)
    one.bytes_an_image = 50
    assert one.lacks_memory(4)
    machine.free = 1000
    other = runner(machine)
    other.bytes_an_image = 50
    assert not other.lacks_memory(4)
    assert other.skipped == {}


def test_one_variants_lack_of_memory_is_not_anothers() -> None:
    small, large = Machine(free=1000, an_image=1), Machine(free=1000, an_image=300)
    assert timed(runner(small), runner(large)) == [[1, 2, 4, 8], [1, 2]]


def test_a_device_that_does_not_tell_what_a_run_takes_skips_nothing() -> None:
    assert timed(runner(Machine(free=1))) == [[1, 2, 4, 8]]


PLACES = {"bound": -1, "measured": 0, "waited for": 1, "warmed up": 2, "timed first": 3, "timed last": 5}
"""When a run fails: how many runs of its batch went before."""


@pytest.mark.parametrize("place", PLACES)
def test_too_little_memory_at_a_batch_is_a_skip_and_not_a_failure(place: str) -> None:
    machine = Machine()
    one = runner(machine, fails={(4, PLACES[place]): refusal(MemoryShortError)})
    other = runner(machine, name="other")
    assert timed(one, other) == [[1, 2, 8], [1, 2, 4, 8]]
    assert one.skipped == {4: "too much"}
    assert one.refusal is None
    assert all(len(measurement.seconds) == 3 for measurement in other.measurements)


@pytest.mark.parametrize("place", PLACES)
def test_a_refusal_ends_a_variant_and_not_the_others(place: str) -> None:
    machine, error = Machine(), refusal()
    one = runner(machine, fails={(4, PLACES[place]): error})
    other = runner(machine, name="other")
    assert timed(one, other) == [[1, 2], [1, 2, 4, 8]]
    assert one.refusal is error
    assert one.skipped == {}
    assert "it 8" not in machine.log
    assert all(len(measurement.seconds) == 3 for measurement in other.measurements)


@pytest.mark.parametrize("kind", [MemoryShortError, EngineError])
@pytest.mark.parametrize("place", ["measured", "waited for", "warmed up", "timed first"])
def test_what_could_not_be_run_is_not_run_again(kind: type[EngineError], place: str) -> None:
    machine = Machine()
    timed(runner(machine, fails={(2, PLACES[place]): refusal(kind)}), plan=replace(PLAN, batches=(2,)))
    assert machine.log.count("it 2") == PLACES[place] + 1


@pytest.mark.parametrize("place", PLACES)
def test_a_bug_is_not_taken_for_a_refusal(place: str) -> None:
    with pytest.raises(ZeroDivisionError):
        timed(runner(Machine(), fails={(4, PLACES[place]): ZeroDivisionError()}))


def test_nothing_to_time_is_no_error() -> None:
    assert time_side_by_side({}, PLAN, silent).busy is None


EARLY = synchronisation.REASON


@pytest.mark.parametrize("batch", [1, 4])
def test_a_device_that_comes_back_early_is_not_timed_and_the_others_are(
    batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine()
    one, other = runner(machine, name="early"), runner(machine, name="other")

    def early(forward: Any, fetch: Any, synchronize: Any) -> bool:
        return bool(fetch == one.session.fetch and len(one.session.fed[-1]) == batch)  # type: ignore[attr-defined]

    monkeypatch.setattr(synchronisation, "comes_back_early", early)
    assert timed(one, other) == [[], [1, 2, 4, 8]]
    assert (one.untimed, one.refusal, one.skipped) == (EARLY, None, {})
    assert machine.log.count("early 8") == 0
    assert (other.untimed, [len(found.seconds) for found in other.measurements]) == ("", [3] * 4)


class Asynchronous(StandIn):
    """A session whose work is done when it is read, or when its machine is waited for."""

    def __init__(self, machine: Machine, now: list[float]) -> None:
        super().__init__(machine)
        self.now, self.pending = now, 0.0

    def bind(self, pixel_values: Array) -> Callable[[], Any]:
        def forward() -> None:
            self.now[0] += 0.001
            self.pending += 5.0

        return forward

    def wait(self) -> None:
        self.now[0] += self.pending
        self.pending = 0.0

    def fetch(self, raw: Any) -> dict[str, Array]:
        self.wait()
        self.now[0] += 1.0
        return {}


@pytest.mark.parametrize("waits", [True, False])
def test_an_asynchronous_device_is_timed_in_full_or_not_at_all(
    waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    machine = Machine()
    session = Asynchronous(machine, now)
    device = replace(machine.device(), synchronize=session.wait if waits else lambda: None)
    one = Runner(session, device, IMAGES)
    timed(one, plan=replace(PLAN, batches=(1,)))
    assert one.untimed == ("" if waits else EARLY)
    samples = [found.seconds for found in one.measurements]
    assert samples == ([pytest.approx((5.001,) * 3)] if waits else [])


def counted(monkeypatch: pytest.MonkeyPatch, *cores: float) -> None:
    """Let others take so many cores between each two readings, of ten seconds each."""
    worked = itertools.accumulate(10 * taken for taken in (0.0, *cores))
    readings = (CounterReading(10.0 * place, sum_, 0.0, 0.0, 2) for place, sum_ in enumerate(worked))
    monkeypatch.setattr(machine_room, "read_counters", lambda: next(readings))


@pytest.mark.parametrize(
    ("cores", "worst"),
    [
        ((0.0, 0.05, 0.0, 0.02, 0.0), 0.05),
        ((0.0, 0.0, 0.0, 0.9, 0.0), 0.9),
        ((0.9, 0.0, 0.9, 0.0, 0.9), 0.54),
    ],
    ids=["quiet", "busy at one batch", "busy between batches"],
)
def test_the_machine_is_watched_at_each_batch_and_all_along(
    cores: tuple[float, ...], worst: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted(monkeypatch, *cores)
    found = time_side_by_side({0: runner(Machine())}, replace(PLAN, batches=(1, 4)), silent)
    assert found.others_cores == pytest.approx(worst)
    assert found.busy is (worst > 0.15)


def test_growth_is_measured_once_a_batch_before_the_clock_starts() -> None:
    machine = Machine()
    timed(runner(machine))
    assert machine.log.count("measure") == len(PLAN.batches)
    assert machine.log[0] == "measure"
