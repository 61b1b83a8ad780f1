"""Peaks of memory, as a report has them."""

from __future__ import annotations

from dataclasses import dataclass

from vconv.runtime.processes.peak_memory import Peak

ISOLATED, IN_PROCESS = "isolated", "in process"
"""Where a peak of memory was measured."""


@dataclass(frozen=True)
class MemoryFound:
    """A variant's peak of memory.

    Args:
        where: where it was measured: :data:`ISOLATED` or :data:`IN_PROCESS`; None where it was not.
        peak_rss_bytes: of the process; None where it cannot be had.
        peak_rss_growth_bytes: by how much that is more than before the variant was loaded.
        peak_device_bytes: of the device.
        reason: why there is none; empty if there is one.
    """

    where: str | None = None
    peak_rss_bytes: int | None = None
    peak_rss_growth_bytes: int | None = None
    peak_device_bytes: int | None = None
    reason: str = ""


UNMEASURED = MemoryFound()


def isolated(found: Peak) -> MemoryFound:
    """Take what a process of its own found: its memory, its device's, and why there is none."""
    grown = _grown(found.before_bytes, found.peak_rss_bytes)
    return MemoryFound(ISOLATED, found.peak_rss_bytes, grown, found.device_bytes, found.reason)


def in_process(before: int | None, peak: int | None) -> MemoryFound:
    """Take this process's peak memory, and what it had before the variant was loaded."""
    return MemoryFound(IN_PROCESS, peak, _grown(before, peak))


def _grown(before: int | None, peak: int | None) -> int | None:
    return None if before is None or peak is None else max(0, peak - before)
