from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from vconv.runtime.timing import machine_load
from vconv.runtime.timing.machine_load import (
    BUSY_CORES,
    LEAST_SECONDS,
    UNTIMED,
    CounterReading,
    Load,
    busiest,
    load_between,
    read_counters,
    watching,
)

BEFORE = CounterReading(clock=1000.0, worked=500.0, stolen=7.0, own=40.0, cores=4)


def after(
    seconds: float = 10.0, own: float = 20.0, others: float = 0.0, stolen: float = 0.0
) -> CounterReading:
    return CounterReading(1000.0 + seconds, 500.0 + own + others, 7.0 + stolen, 40.0 + own, 4)


def test_what_others_took_is_what_was_worked_and_not_by_this_process() -> None:
    found = load_between(BEFORE, after(own=20.0, others=12.5, stolen=5.0))
    assert (found.others_cores, found.steal_cores, found.busy) == (1.25, 0.5, True)
    assert found.reason == ("other processes took 1.25 of 4 cores, a hypervisor 0.50: more than 0.15")


def test_an_idle_machine_is_quiet_however_much_this_process_works() -> None:
    found = load_between(BEFORE, after(own=39.9))
    assert (found.others_cores, found.steal_cores, found.busy) == (0.0, 0.0, False)
    assert found.reason == "other processes took 0.00 of 4 cores"


@pytest.mark.parametrize(
    ("others", "stolen", "busy"),
    [(0.9, 0.0, False), (1.1, 0.0, True), (0.0, 0.9, False), (0.0, 1.1, True), (0.55, 0.55, True)],
)
def test_both_together_decide(others: float, stolen: float, busy: bool) -> None:
    scale = 10.0 * BUSY_CORES
    assert load_between(BEFORE, after(others=scale * others, stolen=scale * stolen)).busy is busy


def test_counters_in_steps_never_give_less_than_nothing() -> None:
    assert load_between(BEFORE, after(others=-0.04)).others_cores == 0.0


@pytest.mark.parametrize(
    ("before", "then", "reason"),
    [
        (None, after(), "/proc/stat does not tell"),
        (BEFORE, None, "/proc/stat does not tell"),
        (BEFORE, after(seconds=0.9 * LEAST_SECONDS), "0.45 s are too short to tell"),
        (BEFORE, replace(after(), worked=500.0), "does not count this process's own work"),
    ],
    ids=["no counters before", "no counters after", "too short", "counters that stand still"],
)
def test_what_is_not_known_is_never_called_quiet(
    before: CounterReading | None, then: CounterReading | None, reason: str
) -> None:
    found = load_between(before, then)
    assert (found.others_cores, found.steal_cores, found.busy) == (None, None, None)
    assert found.reason.startswith("not known: ") and reason in found.reason


def test_a_watch_has_its_finding_once_the_block_is_left() -> None:
    readings = iter([BEFORE, after(others=30.0)])
    with watching(lambda: next(readings)) as watch:
        assert watch.load == UNTIMED
    assert (watch.load.others_cores, watch.load.busy) == (3.0, True)


QUIET, BUSY = Load(0.01, 0.0, False, "quiet"), Load(0.5, 0.1, True, "busy")
UNKNOWN = Load(None, None, None, "not known")


@pytest.mark.parametrize(
    ("whole", "parts", "expected"),
    [
        (QUIET, [], QUIET),
        (QUIET, [QUIET, BUSY, UNKNOWN], BUSY),
        (BUSY, [QUIET], BUSY),
        (QUIET, [UNKNOWN], QUIET),
        (UNKNOWN, [UNKNOWN], UNKNOWN),
        (UNKNOWN, [BUSY], BUSY),
        (Load(0.3, 0.0, True, "a"), [Load(0.2, 0.2, True, "b")], Load(0.2, 0.2, True, "b")),
    ],
)
def test_the_worst_part_that_is_known_speaks_for_the_whole(
    whole: Load, parts: list[Load], expected: Load
) -> None:
    assert busiest(whole, parts) == expected


STAT = """cpu  9999 9999 9999 9999 9999 9999 9999 9999 9999 9999
cpu0 100 20 30 5000 400 5 6 70 80 9
cpu1 200 0 0 6000 0 0 0 1 0 0
cpu2 7000 7000 7000 7000 7000 7000 7000 7000 0 0
cpu10 1000 0 0 0 0 0 0 0 0 0
intr 12345 0 0
ctxt 99999
"""


def pretend(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str, allowed: set[int]) -> None:
    (folder / "stat").write_text(text)
    monkeypatch.setattr(machine_load, "_STAT", folder / "stat")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: allowed)
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_CLK_TCK": 100}[name])


def test_the_counters_are_those_of_the_cpus_that_this_process_may_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretend(monkeypatch, tmp_path, STAT, {0, 10})
    found = read_counters()
    assert found is not None
    # user, nice, system, irq and softirq of two CPUs, in hundredths of a second; not idle, iowait and guests
    assert found.worked == pytest.approx((100 + 20 + 30 + 5 + 6 + 1000) / 100)
    assert (found.stolen, found.cores) == (pytest.approx(0.70), 2)
    assert found.own > 0


@pytest.mark.parametrize(
    ("text", "allowed"),
    [(STAT, {0, 3}), ("", {0}), ("cpu0 1 2 3 4 5 6 7\n", {0}), ("intr 1 2\n", {0})],
    ids=["a CPU that is not listed", "nothing", "no steal", "no CPUs"],
)
def test_counters_that_lack_something_are_none(
    text: str, allowed: set[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretend(monkeypatch, tmp_path, text, allowed)
    assert read_counters() is None


def test_without_counters_there_is_no_reading(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine_load, "_STAT", tmp_path / "not-there")
    assert read_counters() is None


def test_the_time_of_children_that_have_ended_is_this_process_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import resource
    from types import SimpleNamespace

    used = {
        resource.RUSAGE_SELF: SimpleNamespace(ru_utime=3.0, ru_stime=0.5),
        resource.RUSAGE_CHILDREN: SimpleNamespace(ru_utime=20.0, ru_stime=0.25),
    }
    pretend(monkeypatch, tmp_path, STAT, {0})
    monkeypatch.setattr(resource, "getrusage", used.__getitem__)
    found = read_counters()
    assert found is not None and found.own == 23.75
