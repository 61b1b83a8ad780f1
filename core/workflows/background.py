"""Run work in a thread beside the caller's own work, and tell it to stop if the caller fails."""

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
        work: the function to run; the event that it receives is set when it should stop.

    Yields:
        A function that waits for the work, and returns its result or raises its exception.
    """
    stop = Event()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work, stop)
        try:
            yield future.result
        except BaseException:
            stop.set()
            raise
