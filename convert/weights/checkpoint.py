"""The patched checkpoint: source tensors streamed into one file, in the stock layout of the library."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event

import numpy as np
from numpy.typing import NDArray

from vconv.convert.files import safetensors_file
from vconv.convert.files.safetensors_file import PlannedTensor, TensorEntry
from vconv.convert.weights.ledger import ADDED, Action, Line, MatchedTensor
from vconv.convert.weights.pieces import NARROW, WHOLE, Assembly, assemble, kept_runs
from vconv.errors import WeightsError
from vconv.types import Say, silent


def values(chunk: bytes, dtype: str) -> NDArray[np.float32]:
    """Convert raw little-endian bytes of an F32, F16, BF16 or F64 tensor to float32; only F64 is rounded."""
    if dtype == "BF16":
        return (np.frombuffer(chunk, "<u2").astype(np.uint32) << 16).view(np.float32)
    stored = np.frombuffer(chunk, {"F32": "<f4", "F16": "<f2", "F64": "<f8"}[dtype])
    with np.errstate(over="ignore"):  # what becomes infinite is refused
        return stored.astype(np.float32, copy=False)


def not_finite(file: str, key: str, dtype: str) -> WeightsError:
    """Return the error for a tensor of a file that holds NaN or Inf."""
    return WeightsError(
        f"a weight is not finite in {file}",
        got=f"NaN or Inf in {key}" + ", as float32" * (dtype == "F64"),
        expected="finite weights",
        fix="use a checkpoint that was saved before training diverged",
    )


def stored(entry: TensorEntry, dtype: str) -> Iterator[bytes]:
    """Yield the bytes of a tensor as an artifact stores them, and raise an error at NaN or Inf.

    Args:
        entry: the tensor.
        dtype: the type to store it in: F32, or its own. Whole numbers are stored as they are.

    Raises:
        WeightsError: a value is not finite.
    """
    if entry.dtype in WHOLE:
        yield from entry.chunks()
        return
    for chunk in entry.chunks():
        block = values(chunk, entry.dtype)
        if not np.isfinite(block).all():
            raise not_finite(entry.path.name, entry.name, entry.dtype)
        yield chunk if entry.dtype == dtype else block.tobytes()


def widened(entry: TensorEntry) -> Iterator[bytes]:
    """Yield the bytes of a tensor, converted to F32: see :func:`stored`."""
    return stored(entry, "F32")


def greatest(entry: TensorEntry) -> float:
    """Return the greatest magnitude in a tensor; 0.0 proves that every element is zero."""
    return max((float(np.abs(np.frombuffer(chunk, "<f4")).max()) for chunk in widened(entry)), default=0.0)


_Stream = Callable[[TensorEntry, str], Iterator[bytes]]
"""Yields the bytes of a tensor, or of consecutive elements of a tensor, in the type that is stored."""


@dataclass(frozen=True)
class WeightsPlan:
    """The plan of an artifact's weights file that is not written yet.

    Args:
        path: the file to write; it must not exist.
        matches: every source tensor with its place in the artifact.
        dropped: the proof for each tensor that is dropped, by canonical key.
        keep: whether F16 and BF16 stay as they are, and are not widened to F32.
    """

    path: Path
    matches: Sequence[MatchedTensor]
    dropped: Mapping[str, str]
    keep: bool = False

    @property
    def kept(self) -> list[MatchedTensor]:
        """The source tensors that the file will hold."""
        return [pair for pair in self.matches if pair.canonical not in self.dropped and pair.kept]

    @property
    def entries(self) -> dict[str, TensorEntry]:
        """The position of every tensor in the file that will be written."""
        return safetensors_file.laid_out(self.path, self._planned(stored))

    @property
    def nbytes(self) -> int:
        """Size of all tensors of the file, in bytes."""
        return sum(tensor.nbytes for tensor in self._planned(stored))

    def _planned(self, stream: _Stream) -> list[PlannedTensor]:
        return _planned(self._assembled(), stream, self.keep)

    def _assembled(self) -> dict[str, Assembly]:
        return assemble((pair.entry, pair.target, pair.pieces) for pair in self.kept)

    def write(self, stop: Event | None = None, say: Say = silent) -> tuple[list[Line], str]:
        """Write the file.

        Args:
            stop: event that cancels the writing when it is set.
            say: receives progress messages.

        Returns:
            The ledger, one line per source tensor, and the SHA-256 of the file.

        Raises:
            InterruptedError: ``stop`` was set.
            WeightsError: a weight is not finite.
        """
        digests: dict[TensorEntry, str] = {}

        def stream(entry: TensorEntry, dtype: str) -> Iterator[bytes]:
            digest = hashlib.sha256()
            for chunk in stored(entry, dtype):
                if stop is not None and stop.is_set():
                    raise InterruptedError
                digest.update(chunk)
                yield chunk
            digests[entry] = digest.hexdigest()

        sha256 = safetensors_file.write(self.path, self._planned(stream), say)
        dtypes = {name: made.dtype(self.keep) for name, made in self._assembled().items()}
        return [self._line(pair, digests, dtypes) for pair in self.matches], sha256

    def _line(
        self, pair: MatchedTensor, digests: Mapping[TensorEntry, str], dtypes: Mapping[str, str]
    ) -> Line:
        entry = pair.entry
        if pair.canonical in self.dropped or not pair.kept:
            digest = _sha256(entry.chunks())
            proof = self.dropped.get(pair.canonical, pair.proof)
            return Line(pair.source, "", pair.left_out, entry.dtype, entry.shape, digest, proof)
        # A tensor that was written as one run has its digest already. A split tensor is read again, in order.
        runs = kept_runs(entry, pair.pieces)
        (dtype,) = {dtypes[piece.target] for piece in pair.pieces if piece.target} or {dtypes[pair.target]}
        digest = (digests.get(runs[0], "") if len(runs) == 1 else "") or _sha256(
            _chained(runs, stored, dtype)
        )
        return Line(
            source=pair.source,
            target=pair.target,
            action=_action(pair, dtype),
            dtype=entry.dtype,
            shape=entry.shape,
            sha256=digest,
            proof=pair.proof,
            pieces=pair.pieces,
            stored=dtype,
        )


def _action(pair: MatchedTensor, dtype: str) -> Action:
    if pair.source.startswith(ADDED):
        return "added"
    if len(pair.pieces) > 1:
        return "split"
    if any(piece.count < math.prod(piece.shape) for piece in pair.pieces):
        return "fused"
    if pair.entry.dtype != dtype:
        return "cast"
    return "copied" if pair.target == pair.source else "renamed"


def _sha256(chunks: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _planned(assembled: Mapping[str, Assembly], stream: _Stream, keep: bool) -> list[PlannedTensor]:
    """Return the planned tensors of a weights file, each with its runs of source elements."""
    planned = []
    for name, made in assembled.items():
        dtype, runs = made.dtype(keep), list(made.in_order())
        planned.append(PlannedTensor(name, dtype, made.shape, partial(_chained, runs, stream, dtype)))
    return planned


def _chained(runs: Sequence[TensorEntry], stream: _Stream, dtype: str) -> Iterator[bytes]:
    for run in runs:
        yield from stream(run, dtype)


def rewrite(path: Path, lines: Iterable[Line], source: Mapping[str, TensorEntry], say: Say = silent) -> str:
    """Write an artifact's weights file again from its source, as the ledger describes.

    Args:
        path: the file to write; it must not exist.
        lines: the ledger.
        source: the source tensors.
        say: receives progress messages.

    Returns:
        The SHA-256 of the file.

    Raises:
        WeightsError: a source tensor is missing, or differs from the one in the ledger.
    """
    kept = [line for line in lines if line.targets]
    for line in kept:
        entry = source.get(line.source)
        if entry is None or (entry.dtype, entry.shape) != (line.dtype, line.shape):
            raise WeightsError(
                "these are not the weights that the artifact was made from",
                got=f"{line.source} as {entry.dtype} {list(entry.shape)}" if entry else f"no {line.source}",
                expected=f"{line.source} as {line.dtype} {list(line.shape)}",
                fix="give the original's weights: `vconv info` names them",
            )
        if line.pieces:
            # The runs are written to different places, so that all of them must be checked first.
            for _ in _checked(entry, line):
                pass
    by_entry = {source[line.source]: line for line in kept if not line.pieces}

    def stream(entry: TensorEntry, dtype: str) -> Iterator[bytes]:
        return _checked(entry, by_entry[entry]) if entry in by_entry else stored(entry, dtype)

    assembled = assemble((source[line.source], line.target, line.pieces) for line in kept)
    narrow = any(line.stored in NARROW for line in kept)
    return safetensors_file.write(path, _planned(assembled, stream, narrow), say)


def _checked(entry: TensorEntry, line: Line) -> Iterator[bytes]:
    """Yield what is kept of a tensor as it is stored; raise an error if the ledger has another digest."""
    digest = hashlib.sha256()
    for chunk in _chained(kept_runs(entry, line.pieces), stored, line.stored):
        digest.update(chunk)
        yield chunk
    if digest.hexdigest() != line.sha256:
        raise WeightsError(
            "these are not the weights that the artifact was made from",
            got=f"other values in {line.source}",
            expected=f"sha256 {line.sha256[:12]}",
            fix="give the original's weights: `vconv info` names them",
        )
