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


FP16 = "fp16"
MIXED = "mixed"
"""float16, and float32 in the nodes that a plan chooses; ``--precision auto`` of an export makes it."""
INT8, INT8_DYNAMIC = "int8", "int8-dynamic"
"""Products of 8-bit whole numbers: with ranges of a calibration, and with those of each run."""


@dataclass(frozen=True)
class Precision:
    """A precision of a variant.

    Args:
        name: the name, as in the name of a variant.
        limits: the precision whose limits apply.
        dtype: torch's name for the type of a torch variant's weights; empty if only graphs have this
            precision.
        autocast: torch's name for the type in which autocast computes; empty without autocast.
        onnx: ONNX's name for the narrowest type in which a graph computes; empty if only torch runs this
            precision.
        reduced: whether an export can make graphs of it, in a folder named like the precision.
        planned: whether such graphs need a plan, which is made on images.
    """

    name: str
    limits: str
    dtype: str
    autocast: str = ""
    onnx: str = ""
    reduced: bool = False
    planned: bool = False

    @property
    def asked(self) -> str:
        """The value of an export's ``--precision`` that makes it."""
        return AUTO if self.name == MIXED else self.name

    @property
    def of_torch(self) -> bool:
        """Whether torch variants are run in it."""
        return bool(self.dtype)

    @property
    def types(self) -> frozenset[str]:
        """Torch's names for the types that a device must support to run this precision."""
        return frozenset({self.dtype, self.autocast or self.dtype})


PRECISIONS: Mapping[str, Precision] = {
    precision.name: precision
    for precision in (
        Precision("fp32", "fp32", "float32", onnx="FLOAT"),
        Precision("fp16", "fp16", "float16", onnx="FLOAT16", reduced=True),
        Precision("bf16", "bf16", "bfloat16", onnx="BFLOAT16", reduced=True),
        Precision(MIXED, "fp16", "", onnx="FLOAT16", reduced=True, planned=True),
        Precision(INT8, "int8", "", onnx="INT8", reduced=True, planned=True),
        Precision(INT8_DYNAMIC, "int8", "", onnx="INT8", reduced=True, planned=True),
        Precision("autocast-fp16", "fp16", "float32", "float16"),
        Precision("autocast-bf16", "bf16", "float32", "bfloat16"),
    )
}
"""Every precision, by name."""
REDUCED_PRECISIONS: Mapping[str, Precision] = {
    name: precision for name, precision in PRECISIONS.items() if precision.reduced
}
"""The precisions in which an export can make more graphs."""


def type_of(name: str) -> str:
    """Return ONNX's name of the narrowest type in which a graph of a precision computes; empty if unknown."""
    return PRECISIONS[name].onnx if name in PRECISIONS else ""


def limits_of(name: str) -> str:
    """Return the precision whose limits apply to one, by its name."""
    return PRECISIONS[name].limits if name in PRECISIONS else name


def torch_precisions() -> dict[str, Precision]:
    """Return the precisions in which torch variants are run, by name."""
    return {name: precision for name, precision in PRECISIONS.items() if precision.of_torch}
