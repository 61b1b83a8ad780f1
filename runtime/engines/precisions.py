"""Precisions that a torch variant can run in. A new one is one row of the table."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from vconv.errors import InputError, UnknownNameError
from vconv.runtime.devices.base import Device

AUTO = "auto"
"""What the device usually runs."""


@dataclass(frozen=True)
class Precision:
    """A precision of a torch variant.

    Args:
        name: as in a variant's name.
        limits: whose limits it is held to.
        dtype: of the weights.
        autocast: the type that autocast computes in; None without it.
    """

    name: str
    limits: str
    dtype: torch.dtype
    autocast: torch.dtype | None = None

    def context(self, device: Device) -> AbstractContextManager[Any]:
        """Return the context in which a model is run."""
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(device.kind, dtype=self.autocast)


PRECISIONS: Mapping[str, Precision] = {
    precision.name: precision
    for precision in (
        Precision("fp32", "fp32", torch.float32),
        Precision("fp16", "fp16", torch.float16),
        Precision("bf16", "bf16", torch.bfloat16),
        Precision("autocast-fp16", "fp16", torch.float32, torch.float16),
        Precision("autocast-bf16", "bf16", torch.float32, torch.bfloat16),
    )
}
"""Every precision, by name."""


def find_precisions(names: Sequence[str], device: Device) -> list[Precision]:
    """Return the precisions that are asked for; what the device usually runs for ``auto``.

    Raises:
        UnknownNameError: there is no such precision.
        InputError: none is named, or the device has it not.
    """
    if list(names) == [AUTO]:
        return [PRECISIONS[name] for name in device.usual]
    for name in names:
        if name not in PRECISIONS:
            choices = [choice for choice in (AUTO, *PRECISIONS) if choice != name]
            raise UnknownNameError(
                "precision", name, choices, fix="name some of those, with commas between, or auto alone"
            )
        if name not in device.precisions:
            raise InputError(
                f"{device.name} has no {name}",
                got=name,
                expected=f"one of {', '.join(device.precisions)}",
                fix="leave --precision out, or name another",
            )
    if not names:
        raise InputError("--precision is empty", got="''", expected="a name", fix="leave --precision out")
    return [precision for name, precision in PRECISIONS.items() if name in names]
