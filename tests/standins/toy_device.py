"""A toy device: all that a new kind of device is, in one file."""

from __future__ import annotations

from dataclasses import replace

from vconv.runtime.devices import cpu
from vconv.runtime.devices.base import Device, Settings


def count() -> int:
    """Return how many there are."""
    return 2


def make(index: int, settings: Settings) -> Device:
    """Describe one."""
    return replace(cpu.make(0, settings), name=f"toy:{index}", kind="toy", index=index, model="Toy 1")


def absent() -> str:
    """Say what was found instead."""
    return "no toy"


def fix() -> str:
    """Say what to do."""
    return "buy one"
