"""Small artifacts to run, folders with an image processor, and machines that stand in for accelerators."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vconv.catalog.systems import System
from vconv.runtime.inputs.images import natural_images
from vconv.runtime.inputs.preprocessing import preprocess
from vconv.runtime.simulation.device import lack
from vconv.types import Array


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Run the shrunk networks on one thread: waiting for a second costs more than it gives."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def pixel_values(small_artifact: Path) -> Array:
    """Five images for :func:`small_artifact`, float32 (5, 3, H, W)."""
    return preprocess(small_artifact, natural_images(5, 3))


@pytest.fixture
def processor_folder(system: System, tmp_path: Path) -> Path:
    """A folder that holds a system's configuration files and nothing else."""
    (tmp_path / "config.json").write_text(json.dumps(dict(system.config)))
    if system.preprocessor:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(dict(system.preprocessor)))
    return tmp_path


@dataclass
class Accelerators:
    """What ``torch.cuda`` or ``torch.npu`` is on a machine with several; every question is noted.

    Args:
        count: how many there are.
        total: bytes that each has.
        bf16: whether they compute in bfloat16.
        soc: torch_npu's number of the chip; 224 is a 910B4.
        asked: what was asked, and of which.
        held: bytes that torch's allocator holds now, by index.
        peak: the most that it held since the last reset, by index.
        others: bytes that something else holds, by index.
    """

    count: int = 2
    total: int = 1000
    bf16: bool = True
    soc: int = 224
    asked: list[tuple[str, int]] = field(default_factory=list)
    held: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(8), 0))
    peak: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(8), 0))
    others: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(8), 0))
    conv: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(allow_hf32=True))
    matmul: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(allow_hf32=False))

    def device_count(self) -> int:
        return self.count

    def is_available(self) -> bool:
        return self.count > 0

    def get_device_capability(self, index: int) -> tuple[int, int]:
        return (8, 0) if self.bf16 else (7, 5)

    def get_device_name(self, index: int) -> str:
        self.asked.append(("name", index))
        return f"Stand-in {index}"

    def get_soc_version(self) -> int:
        return self.soc

    def synchronize(self, index: int) -> None:
        self.asked.append(("synchronize", index))

    def mem_get_info(self, index: int) -> tuple[int, int]:
        self.asked.append(("free", index))
        return self.total - self.held[index] - self.others[index], self.total

    def reset_peak_memory_stats(self, index: int) -> None:
        self.asked.append(("reset", index))
        self.peak[index] = self.held[index]

    def memory_allocated(self, index: int) -> int:
        self.asked.append(("allocated", index))
        return self.held[index]

    def max_memory_allocated(self, index: int) -> int:
        self.asked.append(("peak", index))
        return self.peak[index]

    def use(self, index: int, passing: int = 0, kept: int = 0, other: int = 0) -> None:
        """Take memory: of torch's allocator for a moment, or for good, or of something else."""
        self.peak[index] = max(self.peak[index], self.held[index] + passing + kept)
        self.held[index] += kept
        self.others[index] += other


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Accelerators], None]:
    """The function that makes this a machine with these ``cuda`` or ``npu`` devices."""

    def put(kind: str, machine: Accelerators) -> None:
        if kind == "npu":
            monkeypatch.setattr(torch, "npu", machine, raising=False)
            return
        for name in vars(Accelerators):
            if not name.startswith("_") and hasattr(torch.cuda, name):
                monkeypatch.setattr(torch.cuda, name, getattr(machine, name))

    return put


@pytest.fixture
def accelerators() -> type[Accelerators]:
    """The class of stand-ins for accelerators."""
    return Accelerators


@pytest.fixture
def machine(install: Callable[[str, Accelerators], None]) -> Accelerators:
    """A machine with two GPUs and, as the same two, two NPUs."""
    found = Accelerators()
    for kind in ("cuda", "npu"):
        install(kind, found)
    return found


@pytest.fixture(params=["cuda", "npu"])
def kind(request: pytest.FixtureRequest) -> str:
    """Every kind of accelerator."""
    return str(request.param)


_PROLOGUE = """
import json, sys
import torch
from vconv.runtime.simulation.arithmetic import *
from vconv.runtime.simulation.device import simulate
torch.set_num_threads(1)
given = json.loads(sys.stdin.read())
state = simulate(Arithmetic(**given.pop("arithmetic", {})))
result = None
"""


@pytest.fixture(scope="session")
def simulating(forked: Callable[..., tuple[str, ...]]) -> Callable[..., Any]:
    """Run some Python in a process that has the simulated NPU; return what it leaves in ``result``.

    What is given by name is there as ``given``; ``arithmetic`` is how it computes, exactly by default.
    """

    if lack():
        pytest.skip(lack())

    def run(source: str, **given: Any) -> Any:
        done = subprocess.run(
            forked("-c", f"{_PROLOGUE}\n{source}\nprint('RESULT' + json.dumps(result))"),
            input=json.dumps(given),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.rpartition("RESULT")[2])

    return run
