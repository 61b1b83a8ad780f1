"""The safetensors container: headers read without their data, files written as a stream.

The format is eight bytes of little-endian header length, a JSON header, then the tensors' bytes
(https://github.com/huggingface/safetensors#format). The offsets of each tensor in its file are what
lets an ONNX graph point into a checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vconv.errors import WeightsError
from vconv.progress import megabytes
from vconv.types import Say, silent

ITEM_SIZES: Mapping[str, int] = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8,
}  # fmt: skip
"""Bytes an element, by safetensors dtype name, in the reference implementation's order of rank."""

HEADER_LIMIT = 100_000_000
"""The greatest header, in bytes, that the reference implementation accepts."""

CHUNK_BYTES = 16 * 2**20
_PREFIX = 8
_SHOWN = 32
_DIMENSIONS = 16
"""No tensor has more."""


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
        """Yield the tensor's bytes, at most :data:`CHUNK_BYTES` at a time, whole elements each."""
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
        f"{path.name} is not a sound safetensors file",
        got=got,
        expected=expected,
        fix="download or copy the file again",
    )


def _text(path: Path, begin: bytes) -> WeightsError:
    pointer = begin.startswith(b"version https://git-lfs")
    return WeightsError(
        f"{path.name} is not a sound safetensors file",
        got="a pointer of Git LFS, in place of the file" if pointer else f"a text that begins {begin!r:.40}",
        expected="a header and tensors",
        fix="run `git lfs pull` in its folder, or download it with `hf download`"
        if pointer
        else "download the file itself; this may be a page about it",
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {name!r} twice in the header")
        found[name] = value
    return found


def read_header(path: Path) -> dict[str, TensorEntry]:
    """Read where every tensor of a safetensors file lies, without reading any tensor.

    Args:
        path: the file.

    Returns:
        One entry a tensor, in file order.

    Raises:
        WeightsError: the file is missing, or its header does not describe the file exactly: every byte
            belongs to one tensor, and every tensor is as long as its dtype and shape say.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            if size <= _PREFIX:
                raise _broken(path, f"a file of {size} bytes", "a header and tensors")
            prefix = file.read(_PREFIX)
            if prefix.isascii() and prefix.decode("ascii").isprintable():
                raise _text(path, prefix + file.read(_SHOWN))
            length = struct.unpack("<Q", prefix)[0]
            if not 2 <= length <= min(HEADER_LIMIT, size - _PREFIX):
                raise _broken(
                    path, f"a header of {length} bytes", f"2 to {min(HEADER_LIMIT, size - _PREFIX)} bytes"
                )
            raw = file.read(length)
    except OSError as error:
        raise WeightsError(
            f"cannot read {path}",
            got=error.strerror or "an error",
            expected="a readable safetensors file",
            fix="check the path and its permissions",
        ) from error
    try:
        header = json.loads(raw, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _broken(path, str(error), "a JSON header with unique names") from error
    if not isinstance(header, dict):
        raise _broken(path, f"a header that is a {type(header).__name__}", "a JSON object")
    header.pop("__metadata__", None)
    start = _PREFIX + length
    entries = {name: _entry(path, name, fields, start) for name, fields in header.items()}
    expected = start
    for entry in sorted(entries.values(), key=lambda entry: (entry.offset, entry.nbytes)):
        if entry.offset != expected:
            raise _broken(
                path, f"{entry.name!r} at byte {entry.offset}", f"byte {expected}, with no gap or overlap"
            )
        expected += entry.nbytes
    if expected != size:
        raise _broken(path, f"a file of {size} bytes", f"{expected} bytes, as its header says")
    return entries


def _entry(path: Path, name: str, fields: Any, start: int) -> TensorEntry:
    try:
        dtype, shape = fields["dtype"], tuple(fields["shape"])
        begin, end = fields["data_offsets"]
        sound = dtype in ITEM_SIZES and all(
            isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 2**63
            for number in (*shape, begin, end)
        )
        sound = sound and len(shape) <= _DIMENSIONS
    except (TypeError, KeyError, ValueError):
        sound = False
    if not sound:
        raise _broken(
            path, f"tensor {name!r} described as {fields!r:.120}", "a known dtype, a shape, offsets"
        )
    nbytes = math.prod(shape) * ITEM_SIZES[dtype]
    if end - begin != nbytes:
        raise _broken(path, f"tensor {name!r} of {end - begin} bytes", f"{nbytes} for {dtype} {list(shape)}")
    return TensorEntry(name, path, dtype, shape, start + begin, nbytes)


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor to be written: its name, dtype, shape, and a function that yields its bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    chunks: Callable[[], Iterable[bytes]]

    @property
    def nbytes(self) -> int:
        """Length in bytes, by dtype and shape."""
        return math.prod(self.shape) * ITEM_SIZES[self.dtype]


def _ordered(tensors: Iterable[PlannedTensor]) -> list[PlannedTensor]:
    ranks = {dtype: rank for rank, dtype in enumerate(ITEM_SIZES)}
    ordered = sorted(tensors, key=lambda tensor: (-ranks[tensor.dtype], tensor.name))
    if len({tensor.name for tensor in ordered}) < len(ordered):
        raise ValueError("two tensors have one name")
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
    """Return where :func:`write` will put every tensor, before it does."""
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
    """Write a safetensors file tensor by tensor; no more than one chunk is ever held.

    The order is the reference implementation's: the highest-ranked dtype first, then by name, so that one
    set of tensors has one set of bytes.

    Args:
        path: the file to write; it must not exist.
        tensors: what to write.
        say: takes progress.

    Returns:
        The file's sha256, in hexadecimal.

    Raises:
        ValueError: two tensors have one name, or one yielded more or fewer bytes than its shape says.
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
