"""Precisions: the types in which a variant is stored and computed. A new precision is one row and its limits.

The limits are in :mod:`vconv.validators.accuracy.limits`, under the pair of :attr:`Precision.limits` and the
engine's arithmetic for the precision. This module imports no large library: it has only the names of types.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

AUTO = "auto"
"""Used instead of names: the precisions that a device usually runs."""
FP32 = "fp32"
"""The precision that every device has; references are computed in it."""


@dataclass(frozen=True)
class Precision:
    """A precision of a variant.

    Args:
        name: the name, as in the name of a variant.
        limits: the precision whose limits apply.
        dtype: torch's name for the type of a torch variant's weights.
        autocast: torch's name for the type in which autocast computes; empty without autocast.
        onnx: ONNX's name for the type of a graph's weights; empty if only torch runs this precision.
    """

    name: str
    limits: str
    dtype: str
    autocast: str = ""
    onnx: str = ""

    @property
    def types(self) -> frozenset[str]:
        """Torch's names for the types that a device must support to run this precision."""
        return frozenset({self.dtype, self.autocast or self.dtype})


PRECISIONS: Mapping[str, Precision] = {
    precision.name: precision
    for precision in (
        Precision("fp32", "fp32", "float32", onnx="FLOAT"),
        Precision("fp16", "fp16", "float16", onnx="FLOAT16"),
        Precision("bf16", "bf16", "bfloat16", onnx="BFLOAT16"),
        Precision("autocast-fp16", "fp16", "float32", "float16"),
        Precision("autocast-bf16", "bf16", "float32", "bfloat16"),
    )
}
"""Every precision, by name."""
