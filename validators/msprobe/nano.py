"""One operator's dump in the layout that msprobe calls nano, which it reads without a library of CANN.

A file is the length of its head, the head, then the data of the inputs and of the outputs. The head is the
magic number, a version, and two lists of tensors, each as a tag, a length and a value. All numbers are
little-endian. Source: the tables of fields and the comment on the format in
``msaccucmp/dump_parse/nano_dump_data.py``; ``msaccucmp/cmp_utils/constant/const_manager.py`` for ND.

The dumps of an NPU have another layout, which only ``libascend_dump_parser.so`` of CANN reads.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import BinaryIO

import numpy as np

from vconv.types import Array

MAGIC = 0x5A5A5A5A
TYPES: Mapping[str, int] = {
    **{"float32": 0, "float16": 1, "int8": 2, "int32": 3, "uint8": 4, "int16": 6, "uint16": 7, "uint32": 8},
    **{"int64": 9, "uint64": 10, "float64": 11, "bool": 12},
}
"""Name of a type -> its number in a nano dump."""
_ND = 2
"""The number of the format in which a tensor lies as it is."""
_INPUTS, _OUTPUTS = 4, 5
_SHAPE, _ORIGINAL_SHAPE, _NAME = 0, 1, 2


def _tagged(tag: int, value: bytes) -> bytes:
    return struct.pack("<II", tag, len(value)) + value


def _described(tensor: Array, name: str) -> bytes:
    """Describe an output: its type, format, size and shapes, and the name of the node that it comes from."""
    kind = TYPES[tensor.dtype.name]
    sides = struct.pack(f"<{tensor.ndim}Q", *tensor.shape)
    details = _tagged(_SHAPE, sides) + _tagged(_ORIGINAL_SHAPE, sides) + _tagged(_NAME, name.encode())
    # Type, format, kind of address; index, type and format before any fusion; address, offset, size.
    numbers = struct.pack("<6i3QI", kind, _ND, 0, 0, kind, _ND, 0, 0, tensor.nbytes, len(details))
    return numbers + details


def write(file: BinaryIO, outputs: Sequence[Array], name: str = "") -> None:
    """Write the dump of an operator with its outputs, and without its inputs.

    Args:
        file: the file to write.
        outputs: the outputs, of types in :data:`TYPES`.
        name: the node that they come from.

    Raises:
        KeyError: the layout has no such type.
    """
    none = _tagged(_INPUTS, struct.pack("<I", 0))
    listed = struct.pack("<I", len(outputs)) + b"".join(_described(tensor, name) for tensor in outputs)
    head = struct.pack("<II", MAGIC, 0) + none + _tagged(_OUTPUTS, listed)
    file.write(struct.pack("<Q", len(head)) + head)
    for tensor in outputs:
        file.write(np.ascontiguousarray(tensor).tobytes())
