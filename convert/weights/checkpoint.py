"""The patched checkpoint: source tensors streamed into one file, in the library's own stock layout."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event

import numpy as np
from numpy.typing import NDArray

from vconv.convert.files import safetensors_file
from vconv.convert.files.safetensors_file import PlannedTensor, TensorEntry
from vconv.convert.weights.ledger import Action, Line, MatchedTensor
from vconv.errors import WeightsError
from vconv.types import Say, silent


def values(chunk: bytes, dtype: str) -> NDArray[np.float32]:
    """Widen raw little-endian bytes of an F32, F16 or BF16 tensor to float32, exactly."""
    if dtype == "BF16":
        return (np.frombuffer(chunk, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(chunk, {"F32": "<f4", "F16": "<f2"}[dtype]).astype(np.float32, copy=False)


def widened(entry: TensorEntry) -> Iterator[bytes]:
    """Yield a tensor as F32 bytes, whatever its type on disk, and stop at NaN or Inf.

    Raises:
        WeightsError: a value is not finite.
    """
    for chunk in entry.chunks():
        block = values(chunk, entry.dtype)
        if not np.isfinite(block).all():
            raise WeightsError(
                f"a weight is not a number in {entry.path.name}",
                got=f"NaN or Inf in {entry.name}",
                expected="finite weights",
                fix="use a checkpoint that was saved before training diverged",
            )
        yield chunk if entry.dtype == "F32" else block.tobytes()


def greatest(entry: TensorEntry) -> float:
    """Return the greatest magnitude in a tensor: 0.0 proves that it is all zero."""
    return max((float(np.abs(np.frombuffer(chunk, "<f4")).max()) for chunk in widened(entry)), default=0.0)


@dataclass(frozen=True)
class WeightsPlan:
    """An artifact's weights file that is yet to be written.

    Args:
        path: the file to write; it must not exist.
        matches: every source tensor with its place in the artifact.
        dropped: canonical keys that are left out, each with its proof.
    """

    path: Path
    matches: Sequence[MatchedTensor]
    dropped: Mapping[str, str]

    @property
    def kept(self) -> list[MatchedTensor]:
        """The source tensors that the file will hold."""
        return [pair for pair in self.matches if pair.canonical not in self.dropped]

    @property
    def entries(self) -> dict[str, TensorEntry]:
        """Where every tensor of the file will lie."""
        return safetensors_file.laid_out(self.path, map(_planned, self.kept))

    @property
    def nbytes(self) -> int:
        """How long the tensors of the file will be."""
        return sum(_planned(pair).nbytes for pair in self.kept)

    def write(self, stop: Event | None = None, say: Say = silent) -> tuple[list[Line], str]:
        """Write the file.

        Args:
            stop: ends the writing when it is set, by an :class:`InterruptedError`.
            say: takes progress.

        Returns:
            The ledger, one line a source tensor, and the file's sha256.

        Raises:
            WeightsError: a weight is not finite.
        """
        digests: dict[str, str] = {}

        def stream(pair: MatchedTensor) -> Iterator[bytes]:
            digest = hashlib.sha256()
            for chunk in widened(pair.entry):
                if stop is not None and stop.is_set():
                    raise InterruptedError
                digest.update(chunk)
                yield chunk
            digests[pair.source] = digest.hexdigest()

        planned = [replace(_planned(pair), chunks=partial(stream, pair)) for pair in self.kept]
        sha256 = safetensors_file.write(self.path, planned, say)
        return [self._line(pair, digests.get(pair.source)) for pair in self.matches], sha256

    def _line(self, pair: MatchedTensor, digest: str | None) -> Line:
        if digest is None:
            digest = hashlib.sha256(b"".join(pair.entry.chunks())).hexdigest()
            proof = self.dropped[pair.canonical]
            return Line(pair.source, "", "dropped", pair.entry.dtype, pair.entry.shape, digest, proof)
        action: Action = "copied" if pair.target == pair.source else "renamed"
        if pair.entry.dtype != "F32":
            action = "cast"
        return Line(pair.source, pair.target, action, pair.entry.dtype, pair.entry.shape, digest)


def _planned(pair: MatchedTensor) -> PlannedTensor:
    return PlannedTensor(pair.target, "F32", pair.entry.shape, partial(widened, pair.entry))


def rewrite(path: Path, lines: Iterable[Line], source: Mapping[str, TensorEntry], say: Say = silent) -> str:
    """Write an artifact's weights file once more, as its ledger says it came about.

    Args:
        path: the file to write; it must not exist.
        lines: the ledger.
        source: the source tensors.
        say: takes progress.

    Returns:
        The file's sha256.

    Raises:
        WeightsError: a tensor is missing, or is not the one that the ledger speaks of.
    """
    kept = [line for line in lines if line.target]
    for line in kept:
        entry = source.get(line.source)
        if entry is None or (entry.dtype, entry.shape) != (line.dtype, line.shape):
            raise WeightsError(
                "these are not the weights that the artifact was made from",
                got=f"{line.source} as {entry.dtype} {list(entry.shape)}" if entry else f"no {line.source}",
                expected=f"{line.source} as {line.dtype} {list(line.shape)}",
                fix="give the original's weights: `vconv info` names them",
            )
    planned = [
        PlannedTensor(line.target, "F32", line.shape, partial(_proven, source[line.source], line))
        for line in kept
    ]
    return safetensors_file.write(path, planned, say)


def _proven(entry: TensorEntry, line: Line) -> Iterator[bytes]:
    digest = hashlib.sha256()
    for chunk in widened(entry):
        digest.update(chunk)
        yield chunk
    if digest.hexdigest() != line.sha256:
        raise WeightsError(
            "these are not the weights that the artifact was made from",
            got=f"other values in {line.source}",
            expected=f"sha256 {line.sha256[:12]}",
            fix="give the original's weights: `vconv info` names them",
        )
