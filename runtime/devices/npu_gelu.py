"""The exact GELU on an NPU: the fastest implementation that is exact on the device.

Written out with erf, a GELU takes about five kernels. ``torch_npu.npu_gelu`` takes one and honours its mode
(``aclnnGeluV2``). So does ``F.gelu`` once ``torch.npu.use_compatible_impl(True)`` is in force (torch_npu
2.9.0.post2 and later). That setting is fixed by the first GELU of a process, so it is the second choice. Each
implementation is run on the device first, to see that it is exact there.
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
"""The implementation that works on every device, with the operators that the artifact's graphs have."""
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
        """Compute x * (1 + erf(x / sqrt(2))) / 2. The setting is restored for all other models."""
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
        name: its name in reports.
        make: makes its module; None if the model keeps the GELU that it has.
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
"""Implementations of the exact GELU, the best first: a name, and a function that makes it or returns None."""


@dataclass(frozen=True)
class GeluKernel:
    """The exact GELU as a function.

    Args:
        name: its name in reports.
        run: computes it on a tensor of any shape.
    """

    name: str
    run: Callable[[Tensor], Tensor]


def in_one_kernel(device: Device) -> GeluKernel:
    """Return the exact GELU of a device with as few kernels as it has one in."""
    if device.kind != "npu":
        return GeluKernel("F.gelu", functional.gelu)
    found = find(device)
    return GeluKernel(found.name, gelu_erf.gelu_erf if found.make is None else found.make())


def find(device: Device) -> ExactGelu:
    """Return the first implementation that computes the exact GELU on an NPU."""
    for name, offered in _WAYS:
        make = offered()
        if make is not None and gelu_form(make(), device.torch_name).active == "erf":
            return ExactGelu(name, make)
    return ExactGelu(SPELLED_OUT, None)


def on_device(patches: Iterable[Patch], device: Device) -> tuple[list[Patch], str]:
    """Replace the GELU that is written out with erf by the device's exact GELU.

    Args:
        patches: the patches of a model.
        device: where the model will run.

    Returns:
        The patches, and the name of the implementation for reports; empty if GELU is not patched.
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
