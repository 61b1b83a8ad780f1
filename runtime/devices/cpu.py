"""The CPU."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from vconv.precisions import FP32
from vconv.runtime.devices.base import Device, Settings
from vconv.runtime.devices.memory import free_memory, growth_of
from vconv.runtime.devices.precisions import names_without


def _nothing() -> None:
    """Do nothing: on a CPU, calls of torch and ONNX Runtime return when the work is done."""


def count() -> int:
    """Return 1: all cores together are one device."""
    return 1


def make(index: int, settings: Settings) -> Device:
    """Describe the CPU of this machine."""
    return Device(
        name="cpu",
        kind="cpu",
        index=0,
        model=_model(),
        arithmetic=FP32,
        precisions=names_without(),
        usual=(FP32,),
        exact=contextlib.nullcontext,
        synchronize=_nothing,
        free_bytes=free_memory,
        growth=growth_of,
    )


def absent() -> str:
    """Say what was found instead of a CPU."""
    return "a CPU"


def fix() -> str:
    """Say how to fix the name of a CPU that does not exist."""
    return "leave the index out: there is one cpu"


def _model() -> str:
    file = Path("/proc/cpuinfo")
    text = file.read_text() if file.is_file() else ""
    found = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else "unknown"
