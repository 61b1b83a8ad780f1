"""Progress of what takes long: lines that know how far it is, passed on like any other line."""

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


def counted(
    items: Iterable[_Item],
    total: int,
    what: str,
    say: Say,
    done: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[_Item]:
    """Yield items, and tell between two of them how many are done and how long the rest will take.

    Args:
        items: what is worked on.
        total: how many there are, with those that were done before.
        what: what they are, in a word or two.
        say: takes a :class:`Counted`, at most one every :data:`EVERY_SECONDS`.
        done: how many were done before, by an earlier run; they say nothing about the speed.
        clock: tells seconds.
    """
    start = told = clock()
    for here, item in enumerate(items, start=1):
        yield item
        now = clock()
        if now - told >= EVERY_SECONDS and done + here < total:
            told = now
            say(Counted(what, done + here, total, (now - start) / here * (total - done - here)))
