from __future__ import annotations

import mmap
from pathlib import Path

import onnxruntime
import pytest
import torch

from vconv.errors import UnknownNameError
from vconv.runtime import devices
from vconv.runtime.devices import DEVICES, find_device
from vconv.validators.limits import STRICT


@pytest.mark.parametrize("name", DEVICES)
def test_every_device_is_found_by_its_name(name: str) -> None:
    assert find_device(name) is DEVICES[name]
    assert DEVICES[name].name == name


@pytest.mark.parametrize("name", DEVICES)
def test_every_device_has_a_name_that_torch_knows(name: str) -> None:
    assert torch.device(DEVICES[name].torch_name).type


@pytest.mark.parametrize("name", DEVICES)
def test_every_device_has_providers_that_onnx_runtime_knows(name: str) -> None:
    providers = DEVICES[name].providers
    assert providers and set(providers) <= set(onnxruntime.get_all_providers())


@pytest.mark.parametrize("name", DEVICES)
def test_every_device_has_strict_limits_for_float32(name: str) -> None:
    assert ("fp32", DEVICES[name].arithmetic) in STRICT


def test_waiting_for_the_cpu_returns() -> None:
    DEVICES["cpu"].synchronize()


def test_an_unknown_device_is_refused_with_the_choices() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown device .*'gpu'.*cpu"):
        find_device("gpu")


def test_resident_memory_is_read_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    status = "Name:\tpython\nVmHWM:\t    4096 kB\nVmRSS:\t    1024 kB\nThreads:\t2\n"
    monkeypatch.setattr(Path, "read_text", lambda self: status)
    assert devices.resident_memory() == (1024 * 1024, 4096 * 1024)


def test_resident_memory_without_its_fields_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self: "Name:\tpython\n")
    with pytest.raises(RuntimeError, match="VmRSS"):
        devices.resident_memory()


def test_the_peak_of_memory_shows_what_was_held_and_let_go() -> None:
    nbytes = 256 * 2**20
    reset = devices.reset_peak_memory()
    if not reset:
        pytest.skip("this kernel does not reset the peak")
    before = devices.resident_memory()[0]
    with mmap.mmap(-1, nbytes) as held:
        for page in range(0, nbytes, mmap.PAGESIZE):
            held[page] = 1
        during = devices.resident_memory()[0]
    now, peak = devices.resident_memory()
    assert during - before > 0.9 * nbytes
    assert peak - before > 0.9 * nbytes
    assert now - before < 0.1 * nbytes


def test_a_kernel_that_does_not_reset_the_peak_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, text: str) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    assert devices.reset_peak_memory() is False
