"""Doing one thing beside another, in a thread, and stopping it when the other fails."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TypeVar

Result = TypeVar("Result")


@contextlib.contextmanager
def in_background(work: Callable[[Event], Result]) -> Iterator[Callable[[], Result]]:
    """Start some work in a thread.

    Args:
        work: what to do; the event that it gets is set when it should stop.

    Yields:
        A function that waits for the work and returns its result, or raises what it raised.
    """
    stop = Event()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work, stop)
        try:
            yield future.result
        except BaseException:
            stop.set()
            raise
