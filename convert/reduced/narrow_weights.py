"""A weights file in a narrower type, converted from an artifact's weights as a stream."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import partial

import numpy as np

from vconv.convert.files.safetensors_file import PlannedTensor, TensorEntry
from vconv.convert.weights.checkpoint import values
from vconv.convert.weights.pieces import WHOLE
from vconv.errors import WeightsError
from vconv.precisions import MIXED
from vconv.types import Array

DTYPES = {"fp16": "F16", "bf16": "BF16", MIXED: "F16"}
"""safetensors' name of the type, by vconv's name of the precision."""


def _float16(block: Array) -> bytes:
    with np.errstate(over="ignore"):  # what becomes infinite is refused
        return bytes(block.astype("<f2").tobytes())


def _bfloat16(block: Array) -> bytes:
    """Round to the nearest, ties to even, as torch does."""
    bits = np.ascontiguousarray(block, "<f4").view("<u4")
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    return bytes((rounded >> 16).astype("<u2").tobytes())


_CONVERSIONS = {"F16": _float16, "BF16": _bfloat16}


def _chunks(entry: TensorEntry, dtype: str) -> Iterator[bytes]:
    """Yield a tensor in a type.

    Raises:
        WeightsError: a value is too large for the type.
    """
    if entry.dtype in WHOLE or entry.dtype == dtype:
        yield from entry.chunks()
        return
    for chunk in entry.chunks():
        block = values(chunk, entry.dtype)
        made = block.tobytes() if dtype == "F32" else _CONVERSIONS[dtype](block)
        if dtype != "F32" and not np.isfinite(values(made, dtype)).all():
            raise WeightsError(
                f"a weight does not fit {dtype}",
                got=f"{float(np.abs(block).max()):.3g} in {entry.name}",
                expected="magnitudes that the type holds",
                fix="keep its node in float32: --precision auto finds such nodes",
            )
        yield made


def planned(entries: Mapping[str, TensorEntry], wide: Collection[str], precision: str) -> list[PlannedTensor]:
    """Plan a weights file.

    Args:
        entries: the tensors of the artifact's weights file, by name.
        wide: the names of the tensors that get float32; the others get the narrow type.
        precision: the precision, a key of :data:`DTYPES`.
    """
    return [
        in_float32(entry)
        if name in wide or entry.dtype in WHOLE
        else PlannedTensor(name, DTYPES[precision], entry.shape, partial(_chunks, entry, DTYPES[precision]))
        for name, entry in entries.items()
    ]


def in_float32(entry: TensorEntry) -> PlannedTensor:
    """Plan a tensor in float32; whole numbers stay as they are."""
    dtype = entry.dtype if entry.dtype in WHOLE else "F32"
    return PlannedTensor(entry.name, dtype, entry.shape, partial(_chunks, entry, dtype))
