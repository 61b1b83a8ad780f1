"""PyTorch checkpoints, read without running the code that a pickle may contain, rewritten as safetensors.

``torch.load(weights_only=True)`` reads tensors and plain containers and refuses everything else. Before torch
2.10, a crafted file can corrupt memory in its unpickler (CVE-2026-24747): give older versions only files that
you trust. The zip format, which torch has written since 1.6, is memory-mapped, so that memory does not grow
with the file; the older format cannot be mapped. The tensors are written by the
streaming writer beside this file and not by ``safetensors.torch``, which needs all of them in memory.
"""

from __future__ import annotations

import math
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vconv.convert.files import safetensors_file
from vconv.convert.files.prefixes import Rename, peel
from vconv.convert.files.safetensors_file import CHUNK_BYTES, PlannedTensor
from vconv.convert.files.text import BEGINNING_BYTES, refuse_text
from vconv.disk import require_space
from vconv.errors import WeightsError

_TEACHER = "teacher"
"""The state dict that self-distillation, such as DINO, evaluates."""
PICKLE_SUFFIXES = (".bin", ".pth", ".pt", ".pth.tar")

WRAPPERS = (
    *("state_dict", "model", "module", "teacher", "student", "model_state_dict"),
    *("state_dict_ema", "model_ema", "ema", "ema_state_dict"),
)
"""Entries of a training checkpoint that may contain the state dict; averaged ones (EMA) come last."""


class Rewritten(NamedTuple):
    """How a checkpoint was rewritten.

    Args:
        removed: the prefixes that were removed from the names of its tensors.
        entry: the entry of the file that held the state dict; empty if the file is one itself.
    """

    removed: tuple[str, ...]
    entry: str


DTYPES: Mapping[torch.dtype, str] = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.int64: "I64", torch.int32: "I32",
    torch.int16: "I16", torch.int8: "I8", torch.uint64: "U64", torch.uint32: "U32", torch.uint16: "U16",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""Torch dtypes to safetensors dtype names."""

_ZIP_MAGIC = b"PK\x03\x04"
_RESERVED = "__metadata__"
_SHARED = 2
"""How often tensors may use the same data: a tied weight has two names."""
_RESAVE = (
    "load it with the library that wrote it, in an environment that you trust, "
    "and save its state dict as safetensors"
)

_UNREADABLE = (
    pickle.UnpicklingError, zipfile.BadZipFile, struct.error, EOFError, RuntimeError, ValueError, TypeError,
    LookupError, AttributeError, AssertionError, OverflowError, MemoryError,
)  # fmt: skip
"""What torch raises for bytes that are not a checkpoint; its unpickler checks few of them."""

_NEEDS_CODE: Mapping[str, str] = {
    r"GLOBAL (\S*\w) ": "a pickle that needs {}, which is not plain data",
    r"Can only (?:build|create)|unrecognized function": "a pickle that creates objects other than tensors",
    r"TorchScript": "a TorchScript program",
    r"\.tar format": "the tar format, which cannot be read without running its pickles",
}
"""Patterns of torch's messages about what ``weights_only`` refuses, and what was found."""

_FAULTS: tuple[tuple[Callable[[Tensor], bool], str], ...] = (
    (lambda tensor: tensor.is_nested, "a nested tensor"),
    (lambda tensor: tensor.layout is not torch.strided, "a sparse tensor"),
    (lambda tensor: tensor.is_quantized, "a quantised tensor"),
    (lambda tensor: tensor.is_meta, "a tensor without data"),
    (lambda tensor: tensor.dtype not in DTYPES, "a tensor of {}"),
    (lambda tensor: _nbytes(tensor) > tensor.untyped_storage().nbytes(), "a tensor larger than its storage"),
)
"""Tensors that safetensors cannot contain; the first that applies is reported.

A tensor that repeats its storage could fill a disk from a file of one kilobyte.
"""


def _nbytes(tensor: Tensor) -> int:
    """Return the number of bytes of a tensor; torch's own count can overflow."""
    return math.prod(tensor.shape) * tensor.element_size()


Read = Callable[[str, str, str, Iterable[bytes]], Iterable[bytes]]
"""Passes on the bytes of a tensor, given its name in the file, its new name and its type."""


def rewrite(
    path: Path, target: Path, rename: Rename = peel, entry: str | None = None, read: Read | None = None
) -> Rewritten:
    """Rewrite a PyTorch checkpoint as a safetensors file, tensor by tensor; no pickled code is run.

    Args:
        path: what ``torch.save`` wrote: a state dict, alone or under one of :data:`WRAPPERS`.
        target: the file to write; it must not exist.
        rename: gives the tensors their new names; by default, without the prefixes of training tools.
        entry: the entry with the state dict, if the file has several; a file without entries has no choice.
        read: sees the bytes of every tensor.

    Returns:
        The prefixes that were removed, and the entry that was read.

    Raises:
        WeightsError: the file cannot be read without running code, is not valid, or does not contain exactly
            one state dict of tensors that safetensors can contain. Nothing is written.
        ArtifactError: there is not enough disk space.
    """
    held, tensors = _state_dict(path, _load(path), entry)
    total = sum(map(_nbytes, tensors.values()))
    stored = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in tensors.values()}
    size = sum(storage.nbytes() for storage in stored.values())
    if total > _SHARED * size + CHUNK_BYTES:
        raise WeightsError(
            f"the tensors of {path.name} repeat each other's data",
            got=f"{total} bytes of tensors from {size} bytes of data",
            expected=f"at most {_SHARED} times as many bytes of tensors as of data",
            fix=_RESAVE,
        )
    require_space(target.parent, total)
    new, removed = rename(tensors)
    planned = [_planned(name, new[name], tensor, read) for name, tensor in tensors.items()]
    safetensors_file.write(target, planned)
    return Rewritten(removed, held)


def _planned(name: str, new: str, tensor: Tensor, read: Read | None) -> PlannedTensor:
    dtype = DTYPES[tensor.dtype]

    def chunks() -> Iterable[bytes]:
        return read(name, new, dtype, _chunks(tensor)) if read else _chunks(tensor)

    return PlannedTensor(new, dtype, tuple(tensor.shape), chunks)


def _chunks(tensor: Tensor) -> Iterator[bytes]:
    flat = tensor.detach().resolve_neg().contiguous().flatten().view(torch.uint8)
    for start in range(0, len(flat), CHUNK_BYTES):
        yield flat[start : start + CHUNK_BYTES].numpy().tobytes()


def _load(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            beginning = file.read(BEGINNING_BYTES)
        if not beginning:
            raise _broken(path, "a file of 0 bytes")
        refuse_text(path, beginning, "PyTorch checkpoint", "a file that torch.save wrote")
        zipped = beginning.startswith(_ZIP_MAGIC)
        if zipped:
            _check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch warns about is refused below
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except OSError as error:
        raise WeightsError(
            f"cannot read {path}",
            got=error.strerror or "an error",
            expected="a readable PyTorch checkpoint",
            fix="check the path and its permissions",
        ) from error
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def _check_archive(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        records = {PurePosixPath(record.filename): record.compress_type for record in archive.infolist()}
    if not any(name.name == "data.pkl" for name in records):
        raise _broken(path, "a zip without data.pkl")
    # A mapped tensor is used without decompression, so compressed bytes would be read as weights.
    if any(name.parent.name == "data" and kind != zipfile.ZIP_STORED for name, kind in records.items()):
        raise _broken(path, "a zip that compresses its tensors")


def _broken(path: Path, got: str) -> WeightsError:
    return WeightsError(
        f"{path.name} is not a valid PyTorch checkpoint",
        got=got,
        expected="a file that torch.save wrote",
        fix=f"download or copy the file again; if it is complete, {_RESAVE}",
    )


def _unreadable(path: Path, error: BaseException) -> WeightsError:
    # Torch surrounds its unpickler's message with advice on how to run the code anyway.
    text = str(error).partition("WeightsUnpickler error: ")[2] or str(error)
    for pattern, got in _NEEDS_CODE.items():
        if match := re.search(pattern, text):
            return WeightsError(
                f"cannot read {path.name} without running code",
                got=got.format(*match.groups()),
                expected="a state dict: tensors by name",
                fix=_RESAVE,
            )
    return _broken(path, f"{text.strip().partition(chr(10))[0] or type(error).__name__:.120}")


def _state_dict(path: Path, content: Any, entry: str | None) -> tuple[str, dict[str, Tensor]]:
    """Return the only or the chosen state dict in what was loaded, after checking it, and its entry."""
    if not isinstance(content, Mapping):
        raise _no_state_dict(path, f"a {type(content).__name__}")
    held, found = _unwrapped(path, content, entry)
    tensors = dict(found)
    if not tensors:
        raise _no_state_dict(path, "an empty state dict")
    for name, value in tensors.items():
        if not (isinstance(name, str) and isinstance(value, Tensor)):
            raise _no_state_dict(path, f"the entry {name!r:.120}, a {type(value).__name__}")
        _check(path, name, value)
    return held, tensors


def _no_state_dict(path: Path, got: str) -> WeightsError:
    return WeightsError(
        f"{path.name} is not a state dict",
        got=got,
        expected="only tensors by name, at the top or under one of " + ", ".join(WRAPPERS),
        fix="save only the model's state dict, as safetensors",
    )


def _unwrapped(path: Path, content: Mapping[Any, Any], entry: str | None) -> tuple[str, Mapping[Any, Any]]:
    """Return the chosen or only wrapper and the state dict under it; without one, the content itself."""
    held: dict[Any, Mapping[Any, Any]] = {
        name: value for name, value in content.items() if _holds_tensors(value)
    }
    wrappers = [name for name in WRAPPERS if name in held]
    if entry is not None and held:
        if entry not in held:
            raise WeightsError(
                f"{path.name} has no such state dict",
                got=repr(entry),
                expected=" or ".join(repr(name) for name in held),
                fix="name one of those with --state-dict",
            )
        return entry, held[entry]
    if not wrappers:
        return "", content
    # Averaged or student weights may have any name, but they have the same tensor names.
    known = _bare(held[wrappers[0]])
    rivals = [name for name in held if name in wrappers or not known.isdisjoint(_bare(held[name]))]
    if len(rivals) > 1:
        likely = _TEACHER if _TEACHER in rivals else rivals[0]
        raise WeightsError(
            f"several state dicts in {path.name}",
            got=", ".join(map(repr, rivals)),
            expected="one",
            fix=f"choose with --state-dict, such as --state-dict {likely}",
        )
    return wrappers[0], held[wrappers[0]]


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(inner, Tensor) for inner in value.values())


def _bare(tensors: Mapping[Any, Any]) -> set[str]:
    """Return the names of tensors without the prefixes of training tools."""
    return set(peel(name for name in tensors if isinstance(name, str))[0].values())


def _check(path: Path, name: str, tensor: Tensor) -> None:
    fault = next((text for applies, text in _FAULTS if applies(tensor)), "")
    if fault or name == _RESERVED:
        raise WeightsError(
            f"safetensors cannot contain {name!r:.120} of {path.name}",
            got=fault.format(tensor.dtype) or "a name that safetensors reserves",
            expected="dense tensors of " + ", ".join(DTYPES.values()),
            fix="convert it with the library that wrote it, and save the state dict as safetensors",
        )
