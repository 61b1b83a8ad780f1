from __future__ import annotations

import mmap
import re
from pathlib import Path

import numpy as np

from vconv.runtime.processes import file_pages
from vconv.runtime.processes.file_pages import FILE, PRESENT
from vconv.runtime.processes.fork import Fork

PAGE = mmap.PAGESIZE


def test_neighbouring_pages_of_files_are_one_run_and_others_are_left_out() -> None:
    here, gone, anonymous = PRESENT | FILE, FILE, PRESENT
    entries = [here, here, gone, anonymous, here]
    assert file_pages._runs(10 * PAGE, entries) == [
        range(10 * PAGE, 12 * PAGE, PAGE),
        range(14 * PAGE, 15 * PAGE, PAGE),
    ]
    assert file_pages._runs(0, []) == []


def test_a_mapped_file_is_listed_once_it_was_read(tmp_path: Path) -> None:
    file = tmp_path / "mapped"
    file.write_bytes(bytes(64 * PAGE))
    mapped = np.memmap(file, np.uint8, "r")
    address = mapped.ctypes.data

    def listed() -> int:
        return sum(address <= page < address + len(mapped) for run in file_pages.resident() for page in run)

    assert listed() == 0
    assert not mapped[::PAGE].any()
    assert listed() == 64


def test_a_fork_has_as_much_of_the_libraries_in_memory_as_its_parent() -> None:
    def resident() -> int:
        found = re.search(r"RssFile:\s+(\d+)", Path("/proc/self/status").read_text())
        assert found
        return int(found[1])

    def answering(requests: object, answers: object) -> None:
        answers.write(f"{resident()}\n")  # type: ignore[attr-defined]

    mine = resident()
    fork = Fork(answering)
    its = int(fork.ask("\n"))
    fork.end()
    assert abs(its - mine) < 0.03 * mine
