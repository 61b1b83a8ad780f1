"""The patched checkpoint: source tensors streamed into one file, in the library's own stock layout."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vconv.convert import safetensors_file
from vconv.convert.ledger import Action, Line, Match
from vconv.convert.safetensors_file import Entry, Planned
from vconv.errors import WeightsError


def values(chunk: bytes, dtype: str) -> NDArray[np.float32]:
    """Widen raw little-endian bytes of an F32, F16 or BF16 tensor to float32, exactly."""
    if dtype == "BF16":
        return (np.frombuffer(chunk, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(chunk, {"F32": "<f4", "F16": "<f2"}[dtype]).astype(np.float32, copy=False)


def widened(entry: Entry) -> Iterator[bytes]:
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
        yield block.tobytes()


def greatest(entry: Entry) -> float:
    """Return the greatest magnitude in a tensor: 0.0 proves that it is all zero."""
    return max((float(np.abs(np.frombuffer(chunk, "<f4")).max()) for chunk in widened(entry)), default=0.0)


def write(path: Path, matches: list[Match], dropped: dict[str, str]) -> tuple[list[Line], str]:
    """Write the artifact's weights file.

    Args:
        path: the file to write; it must not exist.
        matches: every source tensor with its place in the artifact.
        dropped: canonical keys that are left out, each with its proof.

    Returns:
        The ledger, one line a source tensor, and the file's sha256.

    Raises:
        WeightsError: a weight is not finite.
    """
    lines: dict[str, Line] = {}

    def line(pair: Match, digest: str, proof: str = "") -> Line:
        action: Action = "copied" if pair.target == pair.source else "renamed"
        if pair.entry.dtype != "F32":
            action = "cast"
        if proof:
            action = "dropped"
        target = "" if proof else pair.target
        return Line(pair.source, target, action, pair.entry.dtype, pair.entry.shape, digest, proof)

    def stream(pair: Match) -> Iterator[bytes]:
        digest = hashlib.sha256()
        for chunk in widened(pair.entry):
            digest.update(chunk)
            yield chunk
        lines[pair.source] = line(pair, digest.hexdigest())

    kept = [
        Planned(pair.target, "F32", pair.entry.shape, partial(stream, pair))
        for pair in matches
        if pair.canonical not in dropped
    ]
    sha256 = safetensors_file.write(path, kept)
    for pair in matches:
        if pair.canonical in dropped:
            digest = hashlib.sha256(b"".join(pair.entry.chunks())).hexdigest()
            lines[pair.source] = line(pair, digest, dropped[pair.canonical])
    return [lines[pair.source] for pair in matches], sha256


def rewrite(path: Path, lines: Iterable[Line], source: Mapping[str, Entry]) -> str:
    """Write an artifact's weights file once more, as its ledger says it came about.

    Args:
        path: the file to write; it must not exist.
        lines: the ledger.
        source: the source tensors.

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
        Planned(line.target, "F32", line.shape, partial(_proven, source[line.source], line)) for line in kept
    ]
    return safetensors_file.write(path, planned)


def _proven(entry: Entry, line: Line) -> Iterator[bytes]:
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
