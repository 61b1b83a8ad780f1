"""Peak memory of variants, for reports."""

from __future__ import annotations

from dataclasses import dataclass

from vconv.runtime.processes.peak_memory import Peak

ISOLATED, IN_PROCESS = "isolated", "in process"
"""Where the peak memory was measured."""


@dataclass(frozen=True)
class MemoryFound:
    """A variant's peak memory.

    Args:
        where: where it was measured: :data:`ISOLATED` or :data:`IN_PROCESS`; None if it was not measured.
        peak_rss_bytes: peak resident memory of the process; None if it is not known.
        peak_rss_growth_bytes: how much the peak exceeds the peak before the variant was loaded.
        peak_device_bytes: peak memory of the device.
        reason: why it was not measured; empty if it was.
    """

    where: str | None = None
    peak_rss_bytes: int | None = None
    peak_rss_growth_bytes: int | None = None
    peak_device_bytes: int | None = None
    reason: str = ""


UNMEASURED = MemoryFound()


def isolated(found: Peak) -> MemoryFound:
    """Return the peak memory that a separate process measured, or the reason why it measured none."""
    grown = _grown(found.before_bytes, found.peak_rss_bytes)
    return MemoryFound(ISOLATED, found.peak_rss_bytes, grown, found.device_bytes, found.reason)


def in_process(before: int | None, peak: int | None) -> MemoryFound:
    """Return this process's peak memory, given its peak before the variant was loaded."""
    return MemoryFound(IN_PROCESS, peak, _grown(before, peak))


def _grown(before: int | None, peak: int | None) -> int | None:
    return None if before is None or peak is None else max(0, peak - before)
