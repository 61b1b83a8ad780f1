"""Measure how a device computes: the form of GELU, and what the operands of products are rounded to.

Settings say what is allowed, not what is done: on an NPU, ``F.gelu`` ignores its mode silently. So each
operation is run on operands for which the known arithmetics give different results. These results are
computed in float64 on the CPU. The arithmetic whose result is nearest to the device's is the one in use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional

from vconv.runtime.devices.base import Device
from vconv.runtime.simulation.arithmetic import CONVOLUTION, GELU, MATMUL, ROUNDINGS

UNKNOWN = "unknown"
"""The reading if the result is near to no known arithmetic."""
DISTINCT = 4.0
"""How many times farther away the second nearest arithmetic must be."""
GREATEST_ERROR = 1e-3
"""Relative L2 error above which a result is near to no arithmetic. The arithmetics are 1e-4 to 1e-3 apart."""
_ROWS, _INNER, _COLUMNS = 32, 64, 32
_IMAGE, _KERNEL = (2, 3, 32, 32), (16, 3, 8, 8)


@dataclass(frozen=True)
class ProbeReading:
    """What was measured for one operation.

    Args:
        active: how the operation is computed: ``erf`` or ``tanh``; ``fp32``, ``hf32`` or ``fp16``; or
            ``unknown``.
        claimed: what the device's settings say; empty if there is no setting for it.
        errors: by arithmetic, the relative L2 distance of the device's result from it.
    """

    active: str
    claimed: str
    errors: Mapping[str, float]

    @property
    def as_claimed(self) -> bool:
        """Whether the reading agrees with the device's settings, or there is no setting for it."""
        return not self.claimed or self.active == self.claimed


def probe(device: Device, seed: int = 0) -> dict[str, ProbeReading]:
    """Measure how a device computes in float32 under its current settings.

    Args:
        device: which.
        seed: of the operands.

    Returns:
        A reading of GELU, of convolutions and of matrix products, by the names of these causes in
        :mod:`vconv.runtime.simulation.arithmetic`.
    """
    claims = _claims(device)
    return {
        name: _reading(run(torch.Generator().manual_seed(seed), device.torch_name), claims.get(name, ""))
        for name, run in _PROBES.items()
    }


def gelu_form(gelu: Callable[[Tensor], Tensor], device: str, seed: int = 0) -> ProbeReading:
    """Measure which form of GELU a function computes on a device: ``erf``, ``tanh``, or ``unknown``."""
    return _reading(_gelu_of(gelu, torch.Generator().manual_seed(seed), device), "")


def _gelu_of(
    gelu: Callable[[Tensor], Tensor], random: Generator, device: str
) -> tuple[Tensor, dict[str, Tensor]]:
    """Run a GELU over [-5, 5]. The forms differ most, by 4.73e-4, at abs(x) = 2.70."""
    values = torch.rand(4096, generator=random) * 10 - 5
    ways = {
        "erf": functional.gelu(values.double()),
        "tanh": functional.gelu(values.double(), approximate="tanh"),
    }
    return gelu(values.to(device)), ways


def _matmul(random: Generator, device: str) -> tuple[Tensor, dict[str, Tensor]]:
    left = torch.randn(_ROWS, _INNER, generator=random)
    right = torch.randn(_INNER, _COLUMNS, generator=random)
    ways = {name: round_(left).double() @ round_(right).double() for name, round_ in ROUNDINGS.items()}
    return left.to(device) @ right.to(device), ways


def _convolution(random: Generator, device: str) -> tuple[Tensor, dict[str, Tensor]]:
    images, kernels = torch.randn(_IMAGE, generator=random), torch.randn(_KERNEL, generator=random)
    ways = {
        name: functional.conv2d(round_(images).double(), round_(kernels).double(), stride=_KERNEL[-1])
        for name, round_ in ROUNDINGS.items()
    }
    return functional.conv2d(images.to(device), kernels.to(device), stride=_KERNEL[-1]), ways


_PROBES: Mapping[str, Callable[[Generator, str], tuple[Tensor, dict[str, Tensor]]]] = {
    GELU: partial(_gelu_of, functional.gelu),
    CONVOLUTION: _convolution,
    MATMUL: _matmul,
}


def _reading(found: tuple[Tensor, dict[str, Tensor]], claimed: str) -> ProbeReading:
    result, ways = found[0].cpu().double(), found[1]
    errors = {
        name: float(torch.linalg.norm(result - way) / torch.linalg.norm(way)) for name, way in ways.items()
    }
    nearest, second = sorted(errors, key=errors.__getitem__)[:2]
    clear = errors[nearest] < GREATEST_ERROR and errors[second] > DISTINCT * errors[nearest]
    return ProbeReading(nearest if clear else UNKNOWN, claimed, errors)


def _claims(device: Device) -> dict[str, str]:
    """Return what a device's settings say about each operation for which there is a setting."""
    if device.kind != "npu":
        return {}
    npu: Any = torch.npu  # type: ignore[attr-defined]
    return {
        CONVOLUTION: "hf32" if npu.conv.allow_hf32 else "fp32",
        MATMUL: "hf32" if npu.matmul.allow_hf32 else "fp32",
    }
