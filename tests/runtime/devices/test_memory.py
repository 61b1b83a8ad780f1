from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path

import pytest

from vconv.runtime.devices import memory

NBYTES = 128 * 2**20


def hold(nbytes: int = NBYTES) -> None:
    """Take memory for a moment, page by page."""
    with mmap.mmap(-1, nbytes) as held:
        for page in range(0, nbytes, mmap.PAGESIZE):
            held[page] = 1


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What files hold, by path; any other is not there."""
    found: dict[str, str] = {}

    def read(self: Path) -> str:
        if str(self) not in found:
            raise FileNotFoundError(str(self))
        return found[str(self)]

    monkeypatch.setattr(Path, "read_text", read)
    return found


def refuse(self: Path, text: str) -> int:
    raise PermissionError(13, "Permission denied")


def skip_unless_the_peak_can_be_reset() -> None:
    if not memory.reset_peak_memory():
        pytest.skip("this kernel does not reset the peak")


def test_resident_memory_is_read_in_bytes(files: dict[str, str]) -> None:
    files["/proc/self/status"] = "Name:\tpython\nVmHWM:\t    4096 kB\nVmRSS:\t    1024 kB\nThreads:\t2\n"
    assert memory.resident_memory() == (1024 * 1024, 4096 * 1024)


def test_resident_memory_without_its_fields_is_an_error(files: dict[str, str]) -> None:
    files["/proc/self/status"] = "Name:\tpython\n"
    with pytest.raises(RuntimeError, match="VmRSS"):
        memory.resident_memory()


def test_the_peak_of_memory_shows_what_was_held_and_let_go() -> None:
    skip_unless_the_peak_can_be_reset()
    before = memory.resident_memory()[0]
    hold()
    now, peak = memory.resident_memory()
    assert peak - before > 0.9 * NBYTES
    assert now - before < 0.1 * NBYTES


def test_resetting_forgets_what_was_held_before() -> None:
    skip_unless_the_peak_can_be_reset()
    hold()
    high = memory.resident_memory()[1]
    assert memory.reset_peak_memory()
    assert high - memory.resident_memory()[1] > 0.8 * NBYTES


def test_a_kernel_that_does_not_reset_the_peak_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "write_text", refuse)
    assert memory.reset_peak_memory() is False


def test_growth_is_what_a_run_held_at_its_height() -> None:
    skip_unless_the_peak_can_be_reset()
    hold(2 * NBYTES)
    assert memory.growth_of(hold) == pytest.approx(NBYTES, rel=0.1)


def test_a_run_that_takes_nothing_grows_by_next_to_nothing() -> None:
    assert 0 <= memory.growth_of(lambda: None) < 0.1 * NBYTES


def test_growth_is_never_negative(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter([(500, 500), (300, 400)])
    monkeypatch.setattr(memory, "resident_memory", lambda: next(sizes))
    monkeypatch.setattr(memory, "reset_peak_memory", lambda: True)
    assert memory.growth_of(lambda: None) == 0


def test_growth_is_nothing_where_linux_hides_it_and_the_run_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "write_text", refuse)
    runs: list[int] = []
    assert memory.growth_of(lambda: runs.append(1)) == 0
    assert runs == [1]


MEMINFO = "MemTotal:       16000 kB\nMemFree:         1000 kB\nMemAvailable:    8000 kB\n"
GROUPS = {
    "no control group": (None, None, 0, 8000 * 1024),
    "one without a limit": ("max\n", "4096\n", 0, 8000 * 1024),
    "one with little left": (f"{6000 * 1024}\n", f"{5000 * 1024}\n", 0, 1000 * 1024),
    "one with files in its cache": (f"{6000 * 1024}\n", f"{5000 * 1024}\n", 2000 * 1024, 3000 * 1024),
    "one with more left than the machine": (f"{90000 * 1024}\n", "0\n", 0, 8000 * 1024),
    "one that is full": (f"{6000 * 1024}\n", f"{6001 * 1024}\n", 0, 0),
}
"""The limit and the use of a control group, how much of it is files' cache, and what is then free."""


@pytest.mark.parametrize("name", GROUPS)
def test_free_memory_is_the_machines_or_the_control_groups(files: dict[str, str], name: str) -> None:
    limit, used, cached, expected = GROUPS[name]
    files["/proc/meminfo"] = MEMINFO
    if limit is not None and used is not None:
        files |= {"/sys/fs/cgroup/memory.max": limit, "/sys/fs/cgroup/memory.current": used}
        files["/sys/fs/cgroup/memory.stat"] = f"anon 1\ninactive_file {cached}\nactive_file 7\n"
    assert memory.free_memory() == expected


def test_a_machine_that_does_not_tell_its_free_memory_is_an_error(files: dict[str, str]) -> None:
    files["/proc/meminfo"] = "MemTotal: 16000 kB\n"
    with pytest.raises(RuntimeError, match="MemAvailable"):
        memory.free_memory()


PEAK = "from vconv.runtime.devices.memory import peak_of_tree; print(peak_of_tree())"
STARTS = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"
HOLDS = f"held = bytearray({NBYTES}); held[::4096] = bytes([1]) * len(held[::4096])"


@pytest.mark.parametrize(
    ("started", "at_least"),
    [((), 0), ((f"{STARTS}; {PEAK}", HOLDS), NBYTES)],
    ids=("alone", "starts another"),
)
def test_the_peak_of_a_process_is_its_own_or_that_of_one_it_started_and_not_its_parents(
    started: tuple[str, ...], at_least: int
) -> None:
    parents = bytearray(2 * NBYTES)
    parents[::4096] = bytes([1]) * len(parents[::4096])
    done = subprocess.run(
        [sys.executable, "-c", *(started or (PEAK,))], capture_output=True, text=True, check=True
    )
    assert at_least <= int(done.stdout) < at_least + NBYTES
