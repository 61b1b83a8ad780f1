"""The documented arithmetic of Ascend NPUs, as changes to the operands of ordinary operators. Simulated.

Sources: ``F.gelu`` runs ``aclnnGelu``, which drops ``approximate`` and computes the tanh form (op-plugin);
``torch.npu.conv.allow_hf32`` is True by default and ``torch.npu.matmul.allow_hf32`` False (torch_npu's
documentation), HF32 being float32 with 11 stored bits of fraction; below 910B1 the cube unit takes float16
operands and has no HF32. Not modelled: the order of accumulation, the accuracy of the vector unit, fused
attention, and speed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

GELU, CONVOLUTION, MATMUL = "gelu", "convolution", "matmul"
CAUSES = (GELU, CONVOLUTION, MATMUL)
"""What the device computes otherwise than a CPU: one field of :class:`Arithmetic` each."""
HF32_DROPPED = 12
"""Bits of float32's fraction of 23 that HF32 leaves out."""


@dataclass(frozen=True)
class Arithmetic:
    """How a device computes in float32. As it is made by default, it computes as a CPU does.

    Args:
        gelu: what becomes of the exact GELU: ``erf``, as it is meant, or ``tanh``.
        convolution: what the operands are rounded to: ``fp32``, ``hf32`` or ``fp16``.
        matmul: the same, of matrix products.
    """

    gelu: str = "erf"
    convolution: str = "fp32"
    matmul: str = "fp32"

    def __post_init__(self) -> None:
        if self.gelu not in ("erf", "tanh") or not {self.convolution, self.matmul} <= set(ROUNDINGS):
            raise ValueError(f"no such arithmetic: {self}")

    @property
    def causes(self) -> tuple[str, ...]:
        """What is computed otherwise than on a CPU."""
        return tuple(name for name in CAUSES if getattr(self, name) != getattr(EXACT, name))

    def only(self, cause: str) -> Arithmetic:
        """Return the same with every other cause switched off."""
        return replace(EXACT, **{cause: getattr(self, cause)})

    @property
    def float32_is(self) -> str:
        """The least of what float32 operands are rounded to: what limits are chosen by."""
        cube = {self.convolution, self.matmul}
        return next((name for name in ("fp16", "hf32") if name in cube), "fp32")


def round_hf32(values: Tensor) -> Tensor:
    """Round float32 of any shape to HF32's 11 bits of fraction, to nearest even, kept in float32."""
    bits = values.contiguous().view(torch.int32)
    half = (1 << (HF32_DROPPED - 1)) - 1
    odd = (bits >> HF32_DROPPED) & 1
    rounded = ((bits + half + odd) & -(1 << HF32_DROPPED)).view(torch.float32).view(values.shape)
    return torch.where(values.isfinite(), rounded, values)


def round_fp16(values: Tensor) -> Tensor:
    """Round float32 of any shape to float16, kept in float32; what is too great becomes infinite."""
    return values.half().float()


ROUNDINGS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "fp32": lambda values: values,
    "hf32": round_hf32,
    "fp16": round_fp16,
}
"""What operands of the cube unit are rounded by, by name."""

EXACT = Arithmetic()

PROFILES: Mapping[str, Arithmetic] = {
    "910b": Arithmetic(gelu="tanh", convolution="hf32", matmul="fp32"),
    "310p": Arithmetic(gelu="tanh", convolution="fp16", matmul="fp16"),
}
"""By the profile's name: how that NPU computes by default."""
DEFAULT_PROFILE = "910b"
FLAGS = {"conv": CONVOLUTION, "matmul": MATMUL}
"""By the name of torch.npu's settings: what their ``allow_hf32`` is for."""


def with_hf32(profile: str, allowed: frozenset[str]) -> Arithmetic:
    """Return a profile's arithmetic with HF32 allowed just where it is named: of ``conv`` and ``matmul``.

    Raises:
        ValueError: the profile's cube unit has no HF32.
    """
    own = PROFILES[profile]
    if own.float32_is == "fp16":
        raise ValueError(f"{profile} has no HF32")
    return replace(own, **{field: "hf32" if flag in allowed else "fp32" for flag, field in FLAGS.items()})


@dataclass(frozen=True)
class _Product:
    """An operator of the cube unit.

    Args:
        cause: whose setting it follows.
        operands: places of what is rounded among its arguments; a bias is added in float32.
    """

    cause: str
    operands: tuple[int, int]


_PRODUCTS: Mapping[str, _Product] = {
    **dict.fromkeys(("mm", "bmm", "mv", "dot", "linear"), _Product(MATMUL, (0, 1))),
    **dict.fromkeys(("addmm", "addmv", "baddbmm", "addbmm"), _Product(MATMUL, (1, 2))),
    **dict.fromkeys(("convolution", "convolution_overrideable"), _Product(CONVOLUTION, (0, 1))),
}


MODELLED = frozenset({*_PRODUCTS, "gelu"})
"""The operators that an arithmetic may change."""


def adjusted(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], arithmetic: Arithmetic
) -> tuple[tuple[Any, ...], Mapping[str, Any], str]:
    """Change a call of an aten operator into what the device would compute.

    Args:
        name: the operator, without its namespace and overload.
        args: its arguments, tensors on the CPU.
        kwargs: those by name.
        arithmetic: how the device computes.

    Returns:
        The arguments, and the cause by which they were changed; empty where they were not.
    """
    name = name.rstrip("_")  # what is done in place is computed likewise
    if name == "gelu":
        if arithmetic.gelu == "erf" or kwargs.get("approximate") == "tanh":
            return args, kwargs, ""
        return args, {**kwargs, "approximate": "tanh"}, GELU
    product = _PRODUCTS.get(name)
    if product is None:
        return args, kwargs, ""
    rounding = getattr(arithmetic, product.cause)
    # Half-precision operands are what they are: neither HF32 nor float16 takes anything from them.
    if rounding == "fp32" or args[product.operands[0]].dtype != torch.float32:
        return args, kwargs, ""
    changed = [ROUNDINGS[rounding](arg) if i in product.operands else arg for i, arg in enumerate(args)]
    return tuple(changed), kwargs, product.cause


def describe(arithmetic: Arithmetic) -> dict[str, str]:
    """Lay an arithmetic out for a report."""
    return {field.name: getattr(arithmetic, field.name) for field in fields(arithmetic)}
