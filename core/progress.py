"""Progress of long work: lines that carry how much is done, and are passed on like any other line.

``rich.progress`` draws only on a terminal, and from a thread, which disturbs timing. The lines of this module
go to any caller, and no code runs between two lines.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from vconv.types import Say

EVERY_SECONDS = 0.5
"""The shortest time between two progress lines."""
_Item = TypeVar("_Item")


class Counted(str):
    """A line that says how much is done; a display may replace the preceding line with it.

    Args:
        what: what is counted.
        done: how many are done.
        total: how many there are in all.
        seconds_left: the estimated time for the rest, in seconds; None if there is no estimate.
    """

    what: str
    done: int
    total: int
    seconds_left: float | None

    def __new__(cls, what: str, done: int, total: int, seconds_left: float | None) -> Counted:
        """Build the line and store its parts."""
        left = "" if seconds_left is None else f", {spoken(seconds_left)} left"
        line = super().__new__(cls, f"{what}: {done} of {total}{left}")
        line.what, line.done, line.total, line.seconds_left = what, done, total, seconds_left
        return line


def spoken(seconds: float) -> str:
    """Format a duration for people: ``8 s``, ``3 min``, ``2 h 5 min``."""
    whole = math.ceil(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


class ProgressMeter:
    """Reports how much is done and how long the rest will take, at most once every :data:`EVERY_SECONDS`.

    Args:
        what: the name of what is counted, in a word or two.
        total: the whole amount, including what was done before.
        say: receives a :class:`Counted`.
        done: the amount that an earlier run did; it does not enter the estimate of the speed.
        unit: the amount that is shown as 1, such as 10**6 bytes.
        left: returns the estimated seconds for the rest; by default, estimated from the speed so far.
        clock: returns the time in seconds.
    """

    def __init__(
        self,
        what: str,
        total: int,
        say: Say,
        done: int = 0,
        *,
        unit: int = 1,
        left: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._what, self._total, self._say, self._unit = what, total, say, unit
        self._left, self._clock = left or self._as_before, clock
        self._before = self._done = done
        self._start = self._now = self._told = clock()

    def add(self, amount: int = 1) -> None:
        """Add an amount to what is done."""
        self._done += amount
        self._now = self._clock()
        if self._now - self._told >= EVERY_SECONDS and self._before < self._done < self._total:
            self._told = self._now
            done, total = self._done // self._unit, self._total // self._unit
            self._say(Counted(self._what, done, total, self._left()))

    def _as_before(self) -> float:
        here = self._done - self._before
        return (self._now - self._start) / here * (self._total - self._done)


def megabytes(what: str, nbytes: int, say: Say) -> ProgressMeter:
    """Return a meter of bytes that reports in megabytes (10**6 bytes).

    Args:
        what: what is done with the bytes, such as ``hashed``.
        nbytes: the number of bytes.
        say: receives a :class:`Counted`.
    """
    return ProgressMeter(f"MB {what}", nbytes, say, unit=10**6)


def counted(
    items: Iterable[_Item],
    total: int,
    what: str,
    say: Say,
    done: int = 0,
    clock: Callable[[], float] = time.perf_counter,
    left: Callable[[], float] | None = None,
) -> Iterator[_Item]:
    """Yield items, and report between them how many are done and how long the rest will take.

    Args:
        items: the items to work on.
        total: how many there are in all, including those that were done before.
        what: the name of the items, in a word or two.
        say: receives a :class:`Counted`, at most one every :data:`EVERY_SECONDS`.
        done: how many an earlier run did; they do not enter the estimate of the speed.
        clock: returns the time in seconds.
        left: see :class:`ProgressMeter`.
    """
    meter = ProgressMeter(what, total, say, done, left=left, clock=clock)
    for item in items:
        yield item
        meter.add()
