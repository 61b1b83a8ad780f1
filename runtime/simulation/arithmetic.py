"""The documented arithmetic of Ascend NPUs, simulated by changes to the operands of ordinary operators.

Sources: ``F.gelu`` runs ``aclnnGelu``, which drops ``approximate`` and computes the tanh form (op-plugin);
``torch.npu.conv.allow_hf32`` is True by default and ``torch.npu.matmul.allow_hf32`` False (torch_npu's
documentation), where HF32 is float32 with 11 stored bits of fraction; on chips before 910B1, the cube unit
takes float16 operands and has no HF32. What an overflow gives is a row of :mod:`vconv.convert.ascend.chips`:
under saturation, exp(12) in float16 is 65504 and sqrt(-1) is 0 (repository github.com/Ascend/pytorch,
``docs/zh/environment_variable_reference/INF_NAN_MODE_ENABLE.md``). Not modelled: the order of accumulation,
the accuracy of the vector unit, fused attention, an overflow of float32, and speed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vconv.convert.ascend.chips import CHIPS

GELU, CONVOLUTION, MATMUL, FUSIONS = "gelu", "convolution", "matmul", "fusions"
CAUSES = (GELU, CONVOLUTION, MATMUL, FUSIONS)
"""What the device computes differently from a CPU; each cause is one field of :class:`Arithmetic`."""
ON_OR_OFF = ON, OFF = ("on", "off")
INF, SATURATES = OVERFLOWS = ("inf", "saturates")
"""What an overflow of float16 gives: Inf and NaN, or the greatest number and 0 in place of NaN."""
FP16_GREATEST = 65504.0
"""The greatest float16 number."""
HF32_DROPPED = 12
"""How many of float32's 23 bits of fraction HF32 drops."""


@dataclass(frozen=True)
class Arithmetic:
    """How a device computes in float32. With the default values, the device computes as a CPU does.

    Args:
        gelu: how the exact GELU is computed: ``erf``, its exact form, or ``tanh``.
        convolution: what the operands of convolutions are rounded to: ``fp32``, ``hf32`` or ``fp16``.
        matmul: what the operands of matrix products are rounded to, likewise.
        fusions: whether the device's compiler runs the published fusion passes on a graph: ``on`` or ``off``.
        overflow: what an overflow of float16 gives: ``inf`` or ``saturates``. It is no cause: it changes only
            what float16 cannot hold.
    """

    gelu: str = "erf"
    convolution: str = "fp32"
    matmul: str = "fp32"
    fusions: str = OFF
    overflow: str = INF

    def __post_init__(self) -> None:
        known = self.gelu in ("erf", "tanh") and self.fusions in ON_OR_OFF and self.overflow in OVERFLOWS
        if not known or not {self.convolution, self.matmul} <= set(ROUNDINGS):
            raise ValueError(f"no such arithmetic: {self}")

    @property
    def saturates(self) -> bool:
        """Whether an overflow of float16 gives the greatest number instead of Inf, and 0 instead of NaN."""
        return self.overflow == SATURATES

    def rounding(self, cause: str) -> Callable[[Tensor], Tensor]:
        """Return the function that rounds the operands of convolutions, or of matrix products."""
        name = getattr(self, cause)
        return saturate_fp16 if self.saturates and name == "fp16" else ROUNDINGS[name]

    @property
    def causes(self) -> tuple[str, ...]:
        """The causes that are computed differently from a CPU."""
        return tuple(name for name in CAUSES if getattr(self, name) != getattr(EXACT, name))

    def only(self, cause: str) -> Arithmetic:
        """Return this arithmetic with every other cause switched off."""
        return replace(self, **{other: getattr(EXACT, other) for other in CAUSES if other != cause})

    @property
    def float32_is(self) -> str:
        """The least precise type that float32 operands are rounded to; it decides which limits apply."""
        cube = {self.convolution, self.matmul}
        return next((name for name in ("fp16", "hf32") if name in cube), "fp32")


def round_hf32(values: Tensor) -> Tensor:
    """Round float32 of any shape to HF32's 11 bits of fraction, to nearest even; the result stays float32."""
    bits = values.contiguous().view(torch.int32)
    half = (1 << (HF32_DROPPED - 1)) - 1
    odd = (bits >> HF32_DROPPED) & 1
    rounded = ((bits + half + odd) & -(1 << HF32_DROPPED)).view(torch.float32).view(values.shape)
    return torch.where(values.isfinite(), rounded, values)


def round_fp16(values: Tensor) -> Tensor:
    """Round float32 of any shape to float16; the result stays float32. Too great values become infinite."""
    return values.half().float()


def saturate(values: Tensor) -> Tensor:
    """Replace in place what is beyond float16, as a device that saturates: Inf by 65504, NaN by 0."""
    return values.nan_to_num_(0.0).clamp_(-FP16_GREATEST, FP16_GREATEST)


def saturate_fp16(values: Tensor) -> Tensor:
    """Round float32 of any shape to float16 on a device that saturates; the result stays float32."""
    return saturate(values.clone()).half().float()


ROUNDINGS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "fp32": lambda values: values,
    "hf32": round_hf32,
    "fp16": round_fp16,
}
"""Name -> the function that rounds the operands of the cube unit, on a device that has Inf and NaN."""

EXACT = Arithmetic()

PROFILES: Mapping[str, Arithmetic] = {
    "910b": Arithmetic("tanh", "hf32", "fp32", overflow=CHIPS["910B"].overflow or INF),
    "310p": Arithmetic("tanh", "fp16", "fp16", overflow=CHIPS["310P"].overflow or INF),
}
"""Name of a profile -> how this NPU computes by default. A3 computes as 910b, a first 910 as 310p."""
DEFAULT_PROFILE = "910b"
FLAGS = {"conv": CONVOLUTION, "matmul": MATMUL}
"""Name of a setting in torch.npu -> the cause that its ``allow_hf32`` controls."""


def with_hf32(profile: str, allowed: frozenset[str]) -> Arithmetic:
    """Return a profile's arithmetic with HF32 only for the named settings, of ``conv`` and ``matmul``.

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
        cause: the cause whose setting the operator follows.
        operands: the positions of the arguments to round; a bias is added in float32.
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
    """Change the arguments of an aten operator so that the CPU computes what the device would compute.

    Args:
        name: the operator, without its namespace and overload.
        args: its positional arguments, with tensors on the CPU.
        kwargs: its keyword arguments.
        arithmetic: how the device computes.

    Returns:
        The arguments, and the cause of their change; empty if they were not changed.
    """
    name = name.rstrip("_")  # in-place operators compute the same values
    if name == "gelu":
        if arithmetic.gelu == "erf" or kwargs.get("approximate") == "tanh":
            return args, kwargs, ""
        return args, {**kwargs, "approximate": "tanh"}, GELU
    product = _PRODUCTS.get(name)
    if product is None:
        return args, kwargs, ""
    rounding = getattr(arithmetic, product.cause)
    # Rounding to HF32 or float16 applies to float32 operands only: half-precision operands stay as they are.
    if rounding == "fp32" or args[product.operands[0]].dtype != torch.float32:
        return args, kwargs, ""
    round_ = arithmetic.rounding(product.cause)
    changed = [round_(arg) if i in product.operands else arg for i, arg in enumerate(args)]
    return tuple(changed), kwargs, product.cause


def describe(arithmetic: Arithmetic) -> dict[str, str]:
    """Return how each cause is computed, for a report; fusions that are off are left out."""
    found = {cause: getattr(arithmetic, cause) for cause in CAUSES}
    return {name: how for name, how in found.items() if how != OFF}
