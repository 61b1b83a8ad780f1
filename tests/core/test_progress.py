from __future__ import annotations

import pytest

from vconv.progress import Counted, ProgressMeter, counted, megabytes, spoken


def _clock(*times: float):
    return iter(times).__next__


def test_it_yields_every_item_and_tells_how_long_the_rest_will_take() -> None:
    lines: list[str] = []
    items = list(counted("abcd", 4, "images", lines.append, clock=_clock(0, 10, 20, 30, 40)))
    assert items == list("abcd")
    assert lines == [
        "images: 1 of 4, 30 s left",
        "images: 2 of 4, 20 s left",
        "images: 3 of 4, 10 s left",
    ]
    assert all(isinstance(line, Counted) for line in lines)


def test_what_an_earlier_run_did_counts_as_done_but_not_for_the_speed() -> None:
    lines: list[str] = []
    list(counted("cd", 4, "images", lines.append, done=2, clock=_clock(0, 10, 20)))
    assert lines == ["images: 3 of 4, 10 s left"]


def test_it_does_not_tell_more_often_than_anyone_reads() -> None:
    lines: list[str] = []
    list(counted(range(5), 5, "images", lines.append, clock=_clock(0, 0.2, 0.4, 0.6, 0.8, 1.0)))
    assert lines == ["images: 3 of 5, 1 s left"]


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "1 s"), (99, "99 s"), (100, "2 min"), (5940, "99 min"), (7500, "2 h 5 min")]
)
def test_a_time_is_said_as_one_would(seconds: float, said: str) -> None:
    assert spoken(seconds) == said


def test_a_meter_tells_amounts_in_its_unit() -> None:
    lines: list[str] = []
    meter = ProgressMeter("MB hashed", 40_000_000, lines.append, unit=10**6, clock=_clock(0, 4, 8, 9))
    for nbytes in (4_000_000, 12_900_000, 23_100_000):
        meter.add(nbytes)
    assert lines == ["MB hashed: 4 of 40, 36 s left", "MB hashed: 16 of 40, 11 s left"]


def test_a_meter_may_be_told_how_long_the_rest_takes() -> None:
    lines: list[str] = []
    list(counted("abc", 3, "rounds", lines.append, clock=_clock(0, 1, 2, 3), left=lambda: 42.0))
    assert lines == ["rounds: 1 of 3, 42 s left", "rounds: 2 of 3, 42 s left"]


def test_bytes_are_told_by_the_million(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vconv.progress.EVERY_SECONDS", 0)
    lines: list[str] = []
    megabytes("written", 28_000_000_000, lines.append).add(7_000_000_000)
    assert lines[0].startswith("MB written: 7000 of 28000, ")
