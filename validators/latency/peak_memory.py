"""Peaks of memory, as a report has them."""

from __future__ import annotations

from typing import Any

from vconv.runtime.processes.peak_memory import Peak

ISOLATED, IN_PROCESS = "isolated", "in process"
"""Where a peak of memory was measured."""


def isolated(found: Peak) -> dict[str, Any]:
    """Lay out what a process of its own found: its memory, its device's, and why there is none."""
    further = {"peak_device_bytes": found.device_bytes, "peak_memory_reason": found.reason}
    return {**memory(found.before_bytes, found.peak_rss_bytes, ISOLATED), **further}


def memory(before: int | None, peak: int | None, where: str) -> dict[str, Any]:
    """Lay out a process's peak memory, and by how much that is more than before the variant was loaded."""
    grown = None if before is None or peak is None else max(0, peak - before)
    return {"peak_memory_is": where, "peak_rss_bytes": peak, "peak_rss_growth_bytes": grown}
