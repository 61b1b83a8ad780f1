"""The exact GELU on an NPU: the fastest way to it that the device honours.

Spelled out with erf it takes about five kernels for one. ``torch_npu.npu_gelu`` takes one and honours its
mode (``aclnnGeluV2``); so does ``F.gelu`` itself once ``torch.npu.use_compatible_impl(True)`` is in force
(torch_npu 2.9.0.post2 and later), but that is fixed by a process's first GELU: it is the second choice. What
a way promises is not believed: it is run on the device first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vconv.convert.patches import gelu_erf
from vconv.convert.patches.base import Patch
from vconv.runtime.devices.base import Device
from vconv.runtime.devices.probe import gelu_form

SPELLED_OUT = "erf, spelled out"
"""The way that needs nothing of a device: what an artifact's own checkpoint has."""
Make = Callable[[], nn.Module]


class NpuGelu(nn.Module):
    """The exact GELU by ``torch_npu.npu_gelu``; any shape, on an NPU."""

    def forward(self, values: Tensor) -> Tensor:
        """Compute x * (1 + erf(x / sqrt(2))) / 2 in one kernel."""
        import torch_npu  # type: ignore[import-not-found, unused-ignore]

        return torch_npu.npu_gelu(values, approximate="none")  # type: ignore[no-any-return, unused-ignore]


class CompatibleGelu(nn.Module):
    """The exact GELU by ``F.gelu`` under the compatible implementation, which is on for this call alone."""

    def forward(self, values: Tensor) -> Tensor:
        """Compute x * (1 + erf(x / sqrt(2))) / 2; nothing else, the original least of all, is to feel it."""
        switch: Any = getattr(torch.npu, "use_compatible_impl", None)  # type: ignore[attr-defined]
        switch(True)
        try:
            return functional.gelu(values)
        finally:
            switch(False)


@dataclass(frozen=True)
class ExactGelu:
    """How a device computes the exact GELU.

    Args:
        name: as reports have it.
        make: makes its module; None where the model's own spelling is left.
    """

    name: str
    make: Make | None


def _npu_gelu() -> Make | None:
    import torch_npu  # type: ignore[import-not-found, unused-ignore]

    return NpuGelu if hasattr(torch_npu, "npu_gelu") else None


def _compatible() -> Make | None:
    npu: Any = torch.npu  # type: ignore[attr-defined]
    return CompatibleGelu if hasattr(npu, "use_compatible_impl") else None


_WAYS: tuple[tuple[str, Callable[[], Make | None]], ...] = (
    ("npu_gelu", _npu_gelu),
    ("F.gelu, compatible implementation", _compatible),
)
"""Ways to the exact GELU, the best first: a name, and what makes it, if the installation has it."""


def find(device: Device) -> ExactGelu:
    """Return the first way to the exact GELU that an NPU honours."""
    for name, offered in _WAYS:
        make = offered()
        if make is not None and gelu_form(make(), device.torch_name).active == "erf":
            return ExactGelu(name, make)
    return ExactGelu(SPELLED_OUT, None)


def on_device(patches: Iterable[Patch], device: Device) -> tuple[list[Patch], str]:
    """Put a device's own exact GELU in place of the one that is spelled out.

    Args:
        patches: what a model is to be patched with.
        device: where it will run.

    Returns:
        The patches, and the way to the GELU as reports have it; empty where GELU is not patched.
    """
    chosen = list(patches)
    names = [patch.name for patch in chosen]
    if gelu_erf.PATCH.name not in names:
        return chosen, ""
    if device.kind != "npu":
        return chosen, SPELLED_OUT
    found = find(device)
    if found.make is not None:
        chosen[names.index(gelu_erf.PATCH.name)] = gelu_erf.realised_by(found.make)
    return chosen, found.name
