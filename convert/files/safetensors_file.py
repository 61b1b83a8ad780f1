"""The safetensors format: finds each tensor in a file, and writes files as a stream.

The format is eight bytes of little-endian header length, a JSON header, then the tensors' bytes
(https://github.com/huggingface/safetensors#format). The library safetensors validates every header. This
module adds three things. It returns offsets, which an ONNX graph needs to refer to data in a checkpoint. It
refuses a header with one name twice. It writes tensors one by one, not only tensors that are all in memory.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError, safe_open

from vconv.convert.files.text import BEGINNING_BYTES, refuse_text
from vconv.errors import WeightsError
from vconv.progress import megabytes
from vconv.regular_files import open_regular
from vconv.types import Say, silent

ITEM_SIZES: Mapping[str, int] = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8,
}  # fmt: skip
"""Bytes of an element by safetensors dtype name, in the order in which the library ranks dtypes."""

CHUNK_BYTES = 16 * 2**20
_PREFIX = 8
_GREATEST_HEADER = 2**23
"""Bytes of a header: 50,000 tensors of 160 bytes, more than a ledger holds. A network of 7 billion
parameters has some 300. The library allows 100 MB, which may take gigabytes and minutes."""
_DIMENSIONS = 16
"""The greatest number of dimensions of a tensor."""


@dataclass(frozen=True)
class TensorEntry:
    """One tensor in a file.

    Args:
        name: its name in the header.
        path: the file that holds it.
        dtype: safetensors dtype name, such as ``F32``.
        shape: its dimensions.
        offset: first byte, counted from the start of the file.
        nbytes: length in bytes.
    """

    name: str
    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int

    def chunks(self) -> Iterator[bytes]:
        """Yield the tensor's bytes in chunks of at most :data:`CHUNK_BYTES`; no element is split."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            left = self.nbytes
            while left:
                block = file.read(min(CHUNK_BYTES, left))
                if not block:
                    raise _broken(self.path, "the file ended inside a tensor", f"{left} more bytes")
                left -= len(block)
                yield block


def _broken(path: Path, got: str, expected: str) -> WeightsError:
    return WeightsError(
        f"{path.name} is not a valid safetensors file",
        got=got,
        expected=expected,
        fix="download or copy the file again",
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {name!r} twice in the header")
        found[name] = value
    return found


def bounded_length(file: BinaryIO) -> int:
    """Return the length of the header of an open file, which is then at the header.

    Raises:
        ValueError: it is above the bound, and must not be parsed. What is longer than the file is the
            library's to refuse, as is all that is not valid.
    """
    length = int.from_bytes(file.read(_PREFIX), "little")
    if _GREATEST_HEADER < length <= os.fstat(file.fileno()).st_size - _PREFIX:
        raise ValueError(f"a header of {length:,} bytes")
    return length


def read_header(path: Path) -> dict[str, TensorEntry]:
    """Read the place of every tensor in a safetensors file; no tensor is read.

    Args:
        path: the file.

    Returns:
        One entry for each tensor, in the order of their bytes.

    Raises:
        WeightsError: the file is missing, or its header does not describe the file exactly: every byte
            belongs to one tensor, and every tensor is as long as its dtype and shape say.
    """
    try:
        with open_regular(path) as file:
            refuse_text(path, file.read(BEGINNING_BYTES), "safetensors file", "a header and tensors")
            file.seek(0)
            length = bounded_length(file)
            tensors = _validated(path)
            raw = file.read(length)
    except OSError as error:
        raise WeightsError(
            f"cannot read {path}",
            got=error.strerror or error,
            expected="a readable safetensors file",
            fix="check the path and its permissions",
        ) from error
    except ValueError as error:
        raise _broken(path, str(error), f"a header of at most {_GREATEST_HEADER:,} bytes") from error
    try:
        json.loads(raw, object_pairs_hook=_unique)
    except ValueError as error:
        raise _broken(path, str(error), "a JSON header with unique names") from error
    entries: dict[str, TensorEntry] = {}
    offset = _PREFIX + length
    for name, dtype, shape in tensors:
        if dtype not in ITEM_SIZES or len(shape) > _DIMENSIONS or any(size >= 2**63 for size in shape):
            raise _broken(
                path,
                f"tensor {name!r:.120} of {dtype} {list(shape)!r:.120}",
                f"at most {_DIMENSIONS} dimensions, and one of " + ", ".join(ITEM_SIZES),
            )
        nbytes = math.prod(shape) * ITEM_SIZES[dtype]
        entries[name] = TensorEntry(name, path, dtype, shape, offset, nbytes)
        offset += nbytes
    return entries


def _validated(path: Path) -> list[tuple[str, str, tuple[int, ...]]]:
    """Return name, dtype and shape of every tensor, in the order of their bytes, which have no gap."""
    try:
        with safe_open(path, "np") as file:  # the framework matters only for the data of tensors
            slices = [(name, file.get_slice(name)) for name in file.offset_keys()]
            return [(name, part.get_dtype(), tuple(part.get_shape())) for name, part in slices]
    except SafetensorError as error:
        said = str(error).removeprefix("Error while deserializing header: ")
        raise _broken(
            path,
            f"{said:.200}, in a file of {path.stat().st_size} bytes",
            "a header that gives every byte of the file to one tensor, as long as its dtype and shape say",
        ) from error


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor to write: its name, dtype, shape, and a function that yields its bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    chunks: Callable[[], Iterable[bytes]]

    @property
    def nbytes(self) -> int:
        """Length in bytes, from dtype and shape."""
        return math.prod(self.shape) * ITEM_SIZES[self.dtype]


def _ordered(tensors: Iterable[PlannedTensor]) -> list[PlannedTensor]:
    ranks = {dtype: rank for rank, dtype in enumerate(ITEM_SIZES)}
    ordered = sorted(tensors, key=lambda tensor: (-ranks[tensor.dtype], tensor.name))
    if len({tensor.name for tensor in ordered}) < len(ordered):
        raise ValueError("two tensors have the same name")
    return ordered


def _header(ordered: Iterable[PlannedTensor]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for tensor in ordered:
        offsets = [position, position := position + tensor.nbytes]
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % _PREFIX)


def laid_out(path: Path, tensors: Iterable[PlannedTensor]) -> dict[str, TensorEntry]:
    """Return where :func:`write` will put every tensor."""
    ordered = _ordered(tensors)
    position = _PREFIX + len(_header(ordered))
    found = {}
    for tensor in ordered:
        found[tensor.name] = TensorEntry(
            tensor.name, path, tensor.dtype, tensor.shape, position, tensor.nbytes
        )
        position += tensor.nbytes
    return found


def write(path: Path, tensors: Iterable[PlannedTensor], say: Say = silent) -> str:
    """Write a safetensors file tensor by tensor; at most one chunk is in memory at a time.

    The order is that of the library safetensors: the highest-ranked dtype first, then by name. The same
    tensors therefore always give the same bytes.

    Args:
        path: the file to write; it must not exist.
        tensors: the tensors to write.
        say: receives progress lines.

    Returns:
        The file's sha256, in hexadecimal.

    Raises:
        ValueError: two tensors have the same name, or one yields more or fewer bytes than its shape says.
    """
    ordered = _ordered(tensors)
    text = _header(ordered)
    digest = hashlib.sha256()
    meter = megabytes("written", sum(tensor.nbytes for tensor in ordered), say)
    with path.open("xb") as file:
        for block in (struct.pack("<Q", len(text)), text):
            file.write(block)
            digest.update(block)
        for tensor in ordered:
            written = 0
            for chunk in tensor.chunks():
                file.write(chunk)
                digest.update(chunk)
                written += len(chunk)
                meter.add(len(chunk))
            if written != tensor.nbytes:
                raise ValueError(f"{tensor.name}: wrote {written} bytes, planned {tensor.nbytes}")
    return digest.hexdigest()
