"""Pieces: the places of a source tensor's elements, if the tensor is split, fused or reshaped.

Tensors are stored row by row. The parts of a fused projection are concatenated along the first dimension, so
that each part is a run of consecutive elements. A piece is such a run. Splitting, fusing and reshaping copy
whole runs of bytes as a stream and change no bit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from pydantic import ConfigDict, with_config

from vconv.convert.files.safetensors_file import ITEM_SIZES, TensorEntry

NARROW = frozenset({"F16", "BF16"})
"""Types that become F32 without loss, and that an artifact may keep."""
WHOLE = frozenset(name for name in ITEM_SIZES if name[0] in "BIU" and name != "BF16")
"""Types of whole numbers."""


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Piece:
    """Consecutive elements of a source tensor, and their place in the artifact.

    Args:
        target: the tensor in the artifact; empty if these elements are dropped.
        shape: its dimensions.
        start: the position of the first of these elements in the target.
        count: number of elements.
    """

    target: str
    shape: tuple[int, ...]
    start: int
    count: int


@dataclass(frozen=True)
class Assembly:
    """One tensor of an artifact, and the runs of source elements that it consists of.

    Args:
        shape: its dimensions.
        runs: the source elements of each run as an entry, by the position of the first element.
    """

    shape: tuple[int, ...]
    runs: dict[int, TensorEntry] = field(default_factory=dict)

    def dtype(self, keep: bool) -> str:
        """Return the type in which the tensor is stored: F32, or the type that all runs have in the source.

        Args:
            keep: whether F16 and BF16 are kept; whole numbers always are.
        """
        found = {run.dtype for run in self.runs.values()}
        kept = NARROW | WHOLE if keep else WHOLE
        return found.pop() if len(found) == 1 and found <= kept else "F32"

    def in_order(self) -> Iterator[TensorEntry]:
        """Yield the runs in order.

        Raises:
            ValueError: the runs overlap or leave a gap, because the rules of a layout are wrong.
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
    """Return an entry of one dimension for consecutive elements of a tensor."""
    size = ITEM_SIZES[entry.dtype]
    return replace(entry, shape=(count,), offset=entry.offset + start * size, nbytes=count * size)


def kept_runs(entry: TensorEntry, pieces: tuple[Piece, ...]) -> list[TensorEntry]:
    """Return the runs of a source tensor that the artifact holds; the tensor itself if it is not divided."""
    if not pieces:
        return [entry]
    starts = itertools.accumulate((piece.count for piece in pieces), initial=0)
    placed = zip(starts, pieces, strict=False)
    return [run_of(entry, start, piece.count) for start, piece in placed if piece.target]


def assemble(
    carried: Iterable[tuple[TensorEntry, str, tuple[Piece, ...]]],
) -> dict[str, Assembly]:
    """Collect the runs that every tensor of an artifact consists of.

    Args:
        carried: source tensors, each with its name in the artifact, or with the pieces that it becomes.

    Raises:
        ValueError: two source tensors go to the same place.
    """
    found: dict[str, Assembly] = {}
    for entry, target, pieces in carried:
        position = 0
        for piece in pieces or (Piece(target, entry.shape, 0, math.prod(entry.shape)),):
            if not piece.target:
                position += piece.count
                continue
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
    """Return the runs of an artifact that, concatenated, are a source tensor; empty if they are not there.

    Elements that were dropped are left out, as :func:`kept_runs` leaves them out of the source tensor.

    Args:
        shape: the source tensor's dimensions.
        target: its name in the artifact, if it is one tensor there.
        pieces: the pieces that it became; empty if it stayed one tensor of the same shape.
        artifact: the artifact's tensors.
    """
    wanted = [piece for piece in pieces if piece.target] or [Piece(target, shape, 0, math.prod(shape))]
    entries = [artifact.get(piece.target) for piece in wanted]
    found = []
    for piece, entry in zip(wanted, entries, strict=True):
        if entry is None or entry.shape != piece.shape:
            return []
        found.append(run_of(entry, piece.start, piece.count) if pieces else entry)
    return found
