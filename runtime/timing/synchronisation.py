"""Whether waiting for a device waits: a clock that is stopped too early gives a number like any other."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

EARLY_SHARE = 0.1
"""Part of a run's time that may be left over for its first reader before its clock is not believed."""
EARLY_SECONDS = 2e-4
"""Seconds that a first reader may take longer in any case: it meets colder caches than the second."""
ATTEMPTS = 5
"""Runs that must all have come back early: one alone may have been interrupted while it was read."""
REASON = "came back before its work was done: synchronise does not wait"


def comes_back_early(
    forward: Callable[[], Any], fetch: Callable[[Any], object], synchronize: Callable[[], None]
) -> bool:
    """Tell whether a device that was waited for still had work to do.

    The outputs of a run that has been waited for are read to the host twice. The second reading takes as long
    as a copy; so does the first one, unless it had to wait for the work itself. With w seconds from the
    launch to the end of the waiting, and l by which the first reading took longer than the second, the device
    was early where l is more than :data:`EARLY_SECONDS` and more than :data:`EARLY_SHARE` of w + l, every
    time.

    Args:
        forward: runs a bound batch; returns its outputs, as they are on the device.
        fetch: reads them to the host.
        synchronize: is to wait for the device.
    """
    return all(_early(forward, fetch, synchronize) for _ in range(ATTEMPTS))


def _early(
    forward: Callable[[], Any], fetch: Callable[[Any], object], synchronize: Callable[[], None]
) -> bool:
    start = time.perf_counter()
    raw = forward()
    synchronize()
    waited = time.perf_counter()
    fetch(raw)
    read = time.perf_counter()
    fetch(raw)
    read_again = time.perf_counter()
    late = (read - waited) - (read_again - read)
    return late > max(EARLY_SECONDS, EARLY_SHARE * (waited - start + late))
