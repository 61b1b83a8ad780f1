"""What else the machine did while something was timed, as Linux counts it.

A clock cannot tell a slow variant from one that had to wait for somebody else's work. Linux counts, for each
CPU, the time that it was in use by anybody (proc(5), /proc/stat), and for each process the time that it used
(getrusage(2)): the difference is what others took. Other users of an accelerator are not seen. The files are
read here: no dependency gives these counters.
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
"""Cores that others may take. On two shared cores, 18 runs of 2 s with nothing else to do saw 0.01 to 0.11,
steal included; one beside a process that kept a core busy saw 0.86 (benchmarks/latency_trust.py has both)."""
LEAST_SECONDS = 0.5
"""Time under which others are not told from the counters' steps of 10 ms a CPU."""
_LEAST_SHARE = 0.5
"""Part of this process's own time that the CPUs must have counted for their counters to be believed."""
_STAT = Path("/proc/stat")
_WORKED = (0, 1, 2, 5, 6)
"""Places in a CPU's line of user, nice, system, irq and softirq: guests are in user already."""
_STOLEN = 7
"""Place of what a hypervisor gave to others."""


@dataclass(frozen=True)
class CounterReading:
    """The counters at one moment, each in seconds since some moment in the past.

    Args:
        clock: the time.
        worked: what the CPUs that this process may use worked, for anybody; core-seconds.
        stolen: what a hypervisor withheld from them; core-seconds.
        own: what this process used, all of its threads and the children that have ended; core-seconds.
        cores: how many CPUs this process may use.
    """

    clock: float
    worked: float
    stolen: float
    own: float
    cores: int


@dataclass(frozen=True)
class Load:
    """What others took while something was timed.

    Args:
        others_cores: cores that other processes kept busy, on average; None where it is not known.
        steal_cores: cores that a hypervisor withheld.
        busy: whether that is too much to tell variants apart; None where it is not known.
        reason: the finding in a phrase.
    """

    others_cores: float | None
    steal_cores: float | None
    busy: bool | None
    reason: str


UNTIMED = Load(None, None, None, "nothing was timed")


@dataclass
class Watch:
    """A look at the machine that has a beginning and, once its block is left, an end.

    Args:
        load: what was found.
    """

    load: Load = field(default=UNTIMED)


def read_counters() -> CounterReading | None:
    """Read the counters of the CPUs that this process may use; None where Linux does not tell them."""
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
    """Tell what others took between two readings.

    others = (worked - own) / time, with what was worked on the CPUs that this process may use, for anybody,
    and what this process itself used; steal = stolen / time. The machine is busy where both together are more
    than :data:`BUSY_CORES`.
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
    """Look at the machine while a block runs.

    Args:
        read: reads the counters.

    Yields:
        What has the finding once the block has been left.
    """
    watch, before = Watch(), read()
    yield watch
    watch.load = load_between(before, read())


def busiest(whole: Load, parts: Iterable[Load]) -> Load:
    """Return the load that was worst: of a whole run, or of a part of it that was long enough to tell."""
    known = [load for load in (whole, *parts) if load.others_cores is not None]
    return max(known, key=lambda load: (load.others_cores or 0) + (load.steal_cores or 0), default=whole)
