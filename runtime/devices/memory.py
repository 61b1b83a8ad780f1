"""Memory of this process and this machine, as Linux reports it.

The files are read directly, because psutil can neither reset a peak nor read the limit of a control group.
"""

from __future__ import annotations

import re
import resource
from collections.abc import Callable
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_KIB = 1024


def reset_peak_memory() -> bool:
    """Start a new measurement of this process's peak resident memory; False where Linux does not allow it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def resident_memory() -> tuple[int, int]:
    """Return this process's resident memory now, and its peak since the last reset, in bytes (Linux)."""
    status = Path("/proc/self/status").read_text()
    return _kilobytes(status, "VmRSS"), _kilobytes(status, "VmHWM")


def peak_of_tree() -> int:
    """Return the peak resident memory of this process or of any that it waited for, in bytes (Linux).

    A parent cannot learn it from ``os.wait4``: what Linux then reports is at least what the parent itself had
    when it started the process, because a new program inherits that peak (``fs/exec.c`` of Linux,
    ``setmax_mm_hiwater_rss``). For processes that this one waited for, that is at most its own peak.
    """
    waited = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * _KIB
    return max(resident_memory()[1], waited)


def free_memory() -> int:
    """Return how many bytes this process can still allocate, on the machine and in its control group."""
    free = _kilobytes(Path("/proc/meminfo").read_text(), "MemAvailable")
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
        cached = re.search(r"^inactive_file (\d+)", (_CGROUP / "memory.stat").read_text(), re.MULTILINE)
    except OSError:
        return free
    # The kernel frees inactive file pages as soon as memory is needed.
    taken = used - (int(cached[1]) if cached else 0)
    return free if limit == "max" else min(free, max(0, int(limit) - taken))


def growth_of(run: Callable[[], object]) -> int:
    """Run a function; return by how many bytes it raised this process's peak memory, 0 if that is unknown."""
    before = resident_memory()[0]
    known = reset_peak_memory()
    run()
    return max(0, resident_memory()[1] - before) if known else 0


def _kilobytes(text: str, field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"Linux does not report {field}")
    return int(found[1]) * _KIB
