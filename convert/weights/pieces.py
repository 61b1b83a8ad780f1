"""Pieces: where the elements of a source tensor go, when they do not become one tensor as they are.

Tensors are laid out row by row, so that the parts of a fused projection, one below the other, are runs of
consecutive elements. A piece is such a run: splitting, fusing and reshaping move whole runs of bytes, are
read as a stream, and change no bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from vconv.convert.files.safetensors_file import ITEM_SIZES, TensorEntry


@dataclass(frozen=True)
class Piece:
    """The next elements of a source tensor, and where in the artifact they go.

    Args:
        target: the tensor in the artifact.
        shape: its dimensions.
        start: the first element of it that they become.
        count: how many there are.
    """

    target: str
    shape: tuple[int, ...]
    start: int
    count: int


@dataclass(frozen=True)
class Assembly:
    """One tensor of an artifact, and the runs of source elements that it is made of.

    Args:
        shape: its dimensions.
        runs: by the first element, the elements that go there, as an entry by itself.
    """

    shape: tuple[int, ...]
    runs: dict[int, TensorEntry] = field(default_factory=dict)

    def in_order(self) -> Iterator[TensorEntry]:
        """Yield the runs, end to end.

        Raises:
            ValueError: they overlap, or leave a gap: the rules that made them are wrong.
        """
        position = 0
        for start, run in sorted(self.runs.items()):
            if start != position:
                raise ValueError(f"elements {position} to {start} of a tensor {list(self.shape)} do not fit")
            position += math.prod(run.shape)
            yield run
        if position != math.prod(self.shape):
            raise ValueError(f"elements from {position} of a tensor {list(self.shape)} are missing")


def run_of(entry: TensorEntry, start: int, count: int) -> TensorEntry:
    """Return consecutive elements of a tensor as an entry by itself, of one dimension."""
    size = ITEM_SIZES[entry.dtype]
    return replace(entry, shape=(count,), offset=entry.offset + start * size, nbytes=count * size)


def assemble(
    carried: Iterable[tuple[TensorEntry, str, tuple[Piece, ...]]],
) -> dict[str, Assembly]:
    """Gather what every tensor of an artifact is made of.

    Args:
        carried: source tensors, each with its name in the artifact, or the pieces that it becomes.

    Raises:
        ValueError: two source tensors go to the same place.
    """
    found: dict[str, Assembly] = {}
    for entry, target, pieces in carried:
        position = 0
        for piece in pieces or (Piece(target, entry.shape, 0, math.prod(entry.shape)),):
            assembly = found.setdefault(piece.target, Assembly(piece.shape))
            if piece.start in assembly.runs:
                raise ValueError(f"two source tensors go to {piece.target} at {piece.start}")
            whole = not pieces
            assembly.runs[piece.start] = entry if whole else run_of(entry, position, piece.count)
            position += piece.count
    return found


def taken_back(
    shape: tuple[int, ...], target: str, pieces: tuple[Piece, ...], artifact: Mapping[str, TensorEntry]
) -> list[TensorEntry]:
    """Return the runs of an artifact that, end to end, are a source tensor again; none if they are not there.

    Args:
        shape: the source tensor's dimensions.
        target: its name in the artifact, where it is one tensor there.
        pieces: the pieces that it became; empty where it is one tensor as it was.
        artifact: the artifact's tensors.
    """
    wanted = pieces or (Piece(target, shape, 0, math.prod(shape)),)
    entries = [artifact.get(piece.target) for piece in wanted]
    found = []
    for piece, entry in zip(wanted, entries, strict=True):
        if entry is None or entry.shape != piece.shape:
            return []
        found.append(run_of(entry, piece.start, piece.count) if pieces else entry)
    return found
