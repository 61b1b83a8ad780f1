"""Progress of long work: lines that know how much is done, passed on like any other line.

``rich.progress`` draws on a terminal only, and from a thread, which disturbs whatever is being timed. These
lines go to any caller, and nothing runs between two of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from vconv.types import Say

EVERY_SECONDS = 0.5
"""How often such a line is passed on at most."""
_Item = TypeVar("_Item")


class Counted(str):
    """A line that says how far something is: whoever shows it may replace the one before.

    Args:
        what: what is counted.
        done: how many of them are done.
        total: how many there are.
        seconds_left: how long the rest will take; None while that cannot be told.
    """

    what: str
    done: int
    total: int
    seconds_left: float | None

    def __new__(cls, what: str, done: int, total: int, seconds_left: float | None) -> Counted:
        """Make the line, and keep what it is made of."""
        left = "" if seconds_left is None else f", {spoken(seconds_left)} left"
        line = super().__new__(cls, f"{what}: {done} of {total}{left}")
        line.what, line.done, line.total, line.seconds_left = what, done, total, seconds_left
        return line


def spoken(seconds: float) -> str:
    """Say how long something lasts: ``8 s``, ``3 min``, ``2 h 5 min``."""
    whole = math.ceil(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


class ProgressMeter:
    """Tells how far something is and how long the rest will take, at most one every :data:`EVERY_SECONDS`.

    Args:
        what: what is counted, in a word or two.
        total: how much there is, with what was done before.
        say: takes a :class:`Counted`.
        done: how much was done before, by an earlier run; it says nothing about the speed.
        unit: how much is told as one, such as 10**6 bytes.
        left: tells how many seconds the rest will take; by default, as long as what was done took.
        clock: tells seconds.
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
        """Note that so much more is done."""
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
    """Return a meter of bytes, which are told by the million.

    Args:
        what: what becomes of them: ``hashed``.
        nbytes: how many there are.
        say: takes a :class:`Counted`.
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
    """Yield items, and tell between two of them how many are done and how long the rest will take.

    Args:
        items: what is worked on.
        total: how many there are, with those that were done before.
        what: what they are, in a word or two.
        say: takes a :class:`Counted`, at most one every :data:`EVERY_SECONDS`.
        done: how many were done before, by an earlier run; they say nothing about the speed.
        clock: tells seconds.
        left: see :class:`ProgressMeter`.
    """
    meter = ProgressMeter(what, total, say, done, left=left, clock=clock)
    for item in items:
        yield item
        meter.add()
