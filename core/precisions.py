"""Precisions: what a variant is stored and computed in. A new one is one row here, and its limits.

The limits are in :mod:`vconv.validators.accuracy.limits`, under the pair of :attr:`Precision.limits` and the
arithmetic that an engine computes it in. Nothing heavy is imported: types are named, not made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

AUTO = "auto"
"""In place of names: what a device usually runs."""
FP32 = "fp32"
"""The precision that every device has, and that references are computed in."""


@dataclass(frozen=True)
class Precision:
    """A precision of a variant.

    Args:
        name: as in a variant's name.
        limits: the precision whose limits it is held to.
        dtype: torch's name of the type that a torch variant's weights have.
        autocast: torch's name of the type that autocast computes in; empty without it.
        onnx: ONNX's name of the type that a graph's weights have; empty where only torch runs it.
    """

    name: str
    limits: str
    dtype: str
    autocast: str = ""
    onnx: str = ""

    @property
    def types(self) -> frozenset[str]:
        """Torch's names of every type that a device must compute in to run it."""
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
