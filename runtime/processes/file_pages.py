"""The pages of files, such as libraries, that a process has in memory: a fork starts without them.

Linux copies the anonymous memory of a process into its fork, but not the mappings of files that were never
written to: a page of such a mapping enters the fork's memory at its first use. A measurement of the fork's
memory would then count the code of the libraries as memory that the variant took. So the fork touches the
pages that its parent had.
"""

from __future__ import annotations

import array
import ctypes
import mmap
from collections.abc import Iterable
from pathlib import Path

PRESENT, FILE = 1 << 63, 1 << 61
"""Bits of an entry of /proc/self/pagemap: the page is in memory; the page is a file's or shared
(proc_pid_pagemap(5))."""
_ENTRY_BYTES = 8


def resident() -> list[range]:
    """Return the addresses of this process's file pages, as ranges; an empty list if Linux hides them."""
    found: list[range] = []
    try:
        with Path("/proc/self/pagemap").open("rb") as pagemap:
            for line in Path("/proc/self/maps").read_text().splitlines():
                addresses, permissions, _, _, inode, *_ = line.split(maxsplit=5)
                if permissions[0] == "r" and inode != "0":
                    start, end = (int(part, 16) for part in addresses.split("-"))
                    pagemap.seek(start // mmap.PAGESIZE * _ENTRY_BYTES)
                    entries = array.array("Q", pagemap.read((end - start) // mmap.PAGESIZE * _ENTRY_BYTES))
                    found += _runs(start, entries)
    except OSError:
        return []
    return found


def _runs(start: int, entries: Iterable[int]) -> list[range]:
    """Return the ranges of file pages in memory, for a mapping that begins at the address ``start``."""
    runs: list[range] = []
    first: int | None = None
    place = 0
    for place, entry in enumerate((*entries, 0)):
        here = entry & PRESENT and entry & FILE
        if here and first is None:
            first = place
        elif not here and first is not None:
            runs.append(range(start + first * mmap.PAGESIZE, start + place * mmap.PAGESIZE, mmap.PAGESIZE))
            first = None
    return runs


def touch(pages: Iterable[range]) -> None:
    """Read one byte of each page. Call this in a fork of the process in which :func:`resident` ran."""
    for run in pages:
        memory = (ctypes.c_ubyte * (run.stop - run.start)).from_address(run.start)
        bytes(memoryview(memory)[:: mmap.PAGESIZE])
