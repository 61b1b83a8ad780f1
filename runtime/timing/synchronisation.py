"""Checks that waiting for a device really waits: a clock stopped too early gives a plausible number."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

EARLY_SHARE = 0.1
"""The share of a run's time that the first reading may take longer before the clock is not trusted."""
EARLY_SECONDS = 2e-4
"""Seconds that the first reading may always take longer: its caches are colder than the second reading's."""
ATTEMPTS = 5
"""Runs that must all return early: a single run may have been interrupted during the reading."""
REASON = "came back before its work was done: synchronise does not wait"


def comes_back_early(
    forward: Callable[[], Any], fetch: Callable[[Any], object], synchronize: Callable[[], None]
) -> bool:
    """Return whether a device still had work to do after the wait for it.

    After the wait, the outputs of a run are read to the host twice. The second reading takes as long as a
    copy. The first reading takes as long too, unless it had to wait for the work itself. Let w be the seconds
    from the launch to the end of the wait, and l the seconds that the first reading took longer than the
    second. The wait ended early if l is more than :data:`EARLY_SECONDS` and more than :data:`EARLY_SHARE` of
    w + l, in every attempt.

    Args:
        forward: runs a bound batch; returns its outputs, as they are on the device.
        fetch: reads the outputs to the host.
        synchronize: should wait for the device; this function checks that.
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
