"""A weights file in a narrower type, converted from an artifact's weights as a stream."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from vconv.convert.files import safetensors_file
from vconv.convert.files.safetensors_file import PlannedTensor, TensorEntry
from vconv.convert.weights.checkpoint import values
from vconv.convert.weights.pieces import WHOLE
from vconv.errors import WeightsError
from vconv.types import Array, Say, silent

DTYPES = {"fp16": "F16", "bf16": "BF16"}
"""safetensors' name of the type, by vconv's name of the precision."""


def _float16(block: Array) -> bytes:
    with np.errstate(over="ignore"):  # what becomes infinite is refused
        return block.astype("<f2").tobytes()


def _bfloat16(block: Array) -> bytes:
    """Round to the nearest, ties to even, as torch does."""
    bits = np.ascontiguousarray(block, "<f4").view("<u4")
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    return (rounded >> 16).astype("<u2").tobytes()


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


def planned(
    entries: Mapping[str, TensorEntry], narrow: Collection[str], precision: str
) -> list[PlannedTensor]:
    """Plan a weights file.

    Args:
        entries: the tensors of the artifact's weights file, by name.
        narrow: the names of the tensors that get the narrow type; the others get float32.
        precision: the precision, a key of :data:`DTYPES`.
    """
    return [
        PlannedTensor(name, dtype, entry.shape, partial(_chunks, entry, dtype))
        for name, entry in entries.items()
        for dtype in (_dtype(entry, name in narrow, precision),)
    ]


def _dtype(entry: TensorEntry, narrow: bool, precision: str) -> str:
    if entry.dtype in WHOLE:
        return entry.dtype
    return DTYPES[precision] if narrow else "F32"


def laid_out(path: Path, tensors: Iterable[PlannedTensor]) -> dict[str, TensorEntry]:
    """Return where :func:`write` will put every tensor."""
    return safetensors_file.laid_out(path, tensors)


def write(path: Path, tensors: Iterable[PlannedTensor], say: Say = silent) -> str:
    """Write the file, one chunk in memory at a time; return its SHA-256."""
    return safetensors_file.write(path, tensors, say)
