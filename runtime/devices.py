"""Devices: where a variant runs, and how to wait for it. A new device is one row of the table."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vconv.errors import UnknownNameError


@dataclass(frozen=True)
class Device:
    """A place to run on.

    Args:
        name: as given on the command line.
        torch_name: what torch calls it.
        providers: ONNX Runtime execution providers, in order of preference.
        arithmetic: how it computes in float32: ``fp32``, or a reduced form of it.
        simulated: whether it imitates another device; the word follows every figure from it.
        synchronize: returns when everything that was launched on it has finished.
    """

    name: str
    torch_name: str
    providers: tuple[str, ...]
    arithmetic: str
    synchronize: Callable[[], None]
    simulated: bool = False


def _nothing_to_wait_for() -> None:
    """Return at once: on a CPU, torch and ONNX Runtime come back when the work is done."""


DEVICES: Mapping[str, Device] = {
    "cpu": Device("cpu", "cpu", ("CPUExecutionProvider",), "fp32", _nothing_to_wait_for)
}
"""Every device, by name."""


def find_device(name: str) -> Device:
    """Look a device up.

    Raises:
        UnknownNameError: there is no such device.
    """
    if name not in DEVICES:
        raise UnknownNameError("device", name, DEVICES, fix="choose one of the devices listed")
    return DEVICES[name]


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
    now, peak = (re.search(rf"{field}:\s+(\d+) kB", status) for field in ("VmRSS", "VmHWM"))
    if now is None or peak is None:
        raise RuntimeError("/proc/self/status has no VmRSS or VmHWM")
    return int(now[1]) * 1024, int(peak[1]) * 1024
