"""The pages of files, such as libraries, that a process has in memory: a fork starts without them.

Linux copies the anonymous memory of a process into its fork, but leaves out mappings of files that were never
written to: a page of those enters the fork's memory when it is used for the first time. Where the memory of
a fork is measured, the code of the libraries would count as what came later. So the fork touches the pages
that its parent had.
"""

from __future__ import annotations

import array
import ctypes
import mmap
from collections.abc import Iterable
from pathlib import Path

PRESENT, FILE = 1 << 63, 1 << 61
"""Bits of an entry of /proc/self/pagemap: in memory, and of a file or shared (proc_pid_pagemap(5))."""
_ENTRY_BYTES = 8


def resident() -> list[range]:
    """Return the addresses of this process's pages of files, in runs; none where Linux hides them."""
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
    """Return the runs of pages that are in memory, of a mapping that begins at an address."""
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
    """Read one byte of each page, in a fork of the process that :func:`resident` listed them in."""
    for run in pages:
        memory = (ctypes.c_ubyte * (run.stop - run.start)).from_address(run.start)
        bytes(memoryview(memory)[:: mmap.PAGESIZE])
