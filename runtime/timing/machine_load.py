"""The load of other processes on the machine during a measurement, as Linux counts it.

A clock cannot distinguish a slow variant from a variant that had to wait for other processes. Linux counts
the time that each CPU was in use by any process (proc(5), /proc/stat), and the time that each process used
(getrusage(2)). The difference is the time that other processes took. Other users of an accelerator are not
seen. This module reads the files itself: no dependency gives these counters.
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

BUSY_CORES = 0.15
"""Cores that other processes may take. On two shared cores, 18 runs of 2 s on an idle machine measured 0.01
to 0.11, steal included; a run beside a process that kept a core busy measured 0.86 (both are in
benchmarks/latency_trust.py)."""
LEAST_SECONDS = 0.5
"""In a shorter time, other processes' work is too small against the counters' resolution of 10 ms per CPU."""
_LEAST_SHARE = 0.5
"""The share of this process's time that the CPUs' counters must show; otherwise they are not trusted."""
_STAT = Path("/proc/stat")
_WORKED = (0, 1, 2, 5, 6)
"""Fields of a CPU's line: user, nice, system, irq and softirq. The user field includes guests."""
_STOLEN = 7
"""The field of the time that a hypervisor gave to other virtual machines."""


@dataclass(frozen=True)
class CounterReading:
    """The counters at one moment, each counted from some moment in the past.

    Args:
        clock: the time in seconds.
        worked: the work of the CPUs that this process may use, for all processes; core-seconds.
        stolen: the time that a hypervisor withheld from these CPUs; core-seconds.
        own: the time that this process used, with all of its threads and its ended children; core-seconds.
        cores: how many CPUs this process may use.
    """

    clock: float
    worked: float
    stolen: float
    own: float
    cores: int


@dataclass(frozen=True)
class Load:
    """The load of other processes during a measurement.

    Args:
        others_cores: the cores that other processes kept busy, on average; None if not known.
        steal_cores: the cores that a hypervisor withheld, on average; None if not known.
        busy: whether the machine was too busy to distinguish variants; None if not known.
        reason: the finding in a phrase; it begins with ``not known:`` if the load of other processes is not.
    """

    others_cores: float | None
    steal_cores: float | None
    busy: bool | None
    reason: str


UNTIMED = Load(None, None, None, "nothing was timed")


@dataclass
class Watch:
    """Holds the load that was measured during a ``with`` block.

    Args:
        load: the load, once the block has ended.
    """

    load: Load = field(default=UNTIMED)


def read_counters() -> CounterReading | None:
    """Read the counters of the CPUs that this process may use; None if Linux does not report them."""
    allowed = os.sched_getaffinity(0)
    try:
        lines = _STAT.read_text().splitlines()
    except OSError:
        return None
    counters = [line.split() for line in lines if line.startswith("cpu") and line[3:4].isdigit()]
    own_cpus = [list(map(int, fields[1:])) for fields in counters if int(fields[0][3:]) in allowed]
    if len(own_cpus) < len(allowed) or min(map(len, own_cpus)) <= _STOLEN:
        return None
    ticks = os.sysconf("SC_CLK_TCK")
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return CounterReading(
        time.monotonic(),
        sum(cpu[place] for cpu in own_cpus for place in _WORKED) / ticks,
        sum(cpu[_STOLEN] for cpu in own_cpus) / ticks,
        sum(usage.ru_utime + usage.ru_stime for usage in used),
        len(allowed),
    )


def load_between(before: CounterReading | None, after: CounterReading | None) -> Load:
    """Return the load of other processes between two readings.

    others = (worked - own) / time, where ``worked`` is the work of the CPUs that this process may use, for
    all processes, and ``own`` is the time that this process used; steal = stolen / time. The machine is busy
    if others + steal is more than :data:`BUSY_CORES`.
    """
    if before is None or after is None:
        return Load(None, None, None, "not known: /proc/stat does not tell what these CPUs did")
    seconds = after.clock - before.clock
    if seconds < LEAST_SECONDS:
        return Load(None, None, None, f"not known: {seconds:.2f} s are too short to tell")
    worked, own = after.worked - before.worked, after.own - before.own
    if worked < _LEAST_SHARE * own:
        return Load(None, None, None, "not known: /proc/stat does not count this process's own work")
    others, steal = max(0.0, worked - own) / seconds, max(0.0, after.stolen - before.stolen) / seconds
    busy = others + steal > BUSY_CORES
    found = f"other processes took {others:.2f} of {after.cores} cores"
    found += f", a hypervisor {steal:.2f}" * (steal > 0)
    return Load(others, steal, busy, found + f": more than {BUSY_CORES}" * busy)


@contextlib.contextmanager
def watching(read: Callable[[], CounterReading | None] = read_counters) -> Iterator[Watch]:
    """Measure the load of other processes while a block runs.

    Args:
        read: reads the counters.

    Yields:
        A watch whose ``load`` is set when the block ends.
    """
    watch, before = Watch(), read()
    yield watch
    watch.load = load_between(before, read())


def busiest(whole: Load, parts: Iterable[Load]) -> Load:
    """Return the greatest known load: that of the whole run, or of one of its parts."""
    known = [load for load in (whole, *parts) if load.others_cores is not None]
    return max(known, key=lambda load: (load.others_cores or 0) + (load.steal_cores or 0), default=whole)
