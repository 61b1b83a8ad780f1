"""A position embedding that is resampled once, so that the stock library resamples nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from vconv.convert.architectures.positions import Kernel
from vconv.convert.files import safetensors_file
from vconv.convert.files.safetensors_file import PlannedTensor, TensorEntry
from vconv.convert.network import Network
from vconv.convert.weights.ledger import ADDED, MatchedTensor
from vconv.convert.weights.resampling import resampled
from vconv.convert.weights.values import exact_bytes, values_of
from vconv.types import Config

RESAMPLED_FILE = "given/resampled.safetensors"
"""In the folder of a source: the resampled embedding. No library reads that folder."""
POSITIONS = "positions"
"""The part of an architecture that holds the position embedding of the patches."""
_ROLE = "position"
AUTHORS = "authors"
"""Whose kernel it is, if it is not the library's."""


@dataclass(frozen=True)
class Resampling:
    """How the position embedding comes to the grid of the images.

    Args:
        by: whose kernel it is: ``authors``, or the library's name.
        kernel: the kernel.
        stored: (rows, columns) of patches that the embedding is stored for.
        grid: those of the images.
    """

    by: str
    kernel: Kernel
    stored: tuple[int, int]
    grid: tuple[int, int]

    @property
    def as_record(self) -> dict[str, Any]:
        """The same in the words of a manifest."""
        at = "export" if self.by == AUTHORS else "run"
        return {
            "by": self.by,
            "kernel": str(self.kernel),
            "stored": self.stored,
            "grid": self.grid,
            "at": at,
        }

    def __str__(self) -> str:
        grids = " to ".join("{}x{}".format(*grid) for grid in (self.stored, self.grid))
        whose = "the authors" if self.by == AUTHORS else self.by
        return f"from {grids}, by the kernel of {whose}: {self.kernel}"


@dataclass(frozen=True)
class Resampled:
    """What an artifact stores in place of the position embedding of a checkpoint.

    Args:
        how: how it was resampled.
        config: the configuration of a network whose position embedding is stored for this grid.
        stored: the tensor of the checkpoint, which is resampled.
        added: the tensor that the artifact has instead.
    """

    how: Resampling
    config: Config
    stored: MatchedTensor
    added: MatchedTensor

    @property
    def entries(self) -> Mapping[str, TensorEntry]:
        """The added tensor by its name in the ledger."""
        return {self.added.source: self.added.entry}

    def placed(self, matches: Iterable[MatchedTensor]) -> list[MatchedTensor]:
        """Return the tensors of a checkpoint with the added one in place of that which is resampled."""
        others = [match for match in matches if match.source != self.stored.source]
        return [*others, self.stored, self.added]


def position_key(net: Network) -> str:
    """Return the stored key of the position embedding of a network that has one."""
    return next(tensor.key for tensor in net.tensors().values() if tensor.role == _ROLE)


def resample(
    net: Network, matches: Iterable[MatchedTensor], how: Resampling, config: Config, folder: Path
) -> Resampled:
    """Resample a position embedding and write it.

    Args:
        net: the network of the original.
        matches: the tensors of the checkpoint with their places in the original.
        how: how it is resampled.
        config: the configuration of the resampled network.
        folder: the folder of the source.

    Raises:
        WeightsError: a value is not finite.
    """
    target = net.stored_key(net.tensors()[position_key(net)])
    stored = next(match for match in matches if match.target == target)
    value = resampled(values_of(stored.entry), how.grid, how.kernel.offset)
    path = folder / RESAMPLED_FILE
    path.parent.mkdir(exist_ok=True)
    name = ADDED + POSITIONS
    dtype, raw = exact_bytes(value, ())
    safetensors_file.write(path, [PlannedTensor(name, dtype, value.shape, partial(tuple, (raw,)))])
    entry = safetensors_file.read_header(path)[name]
    told = f"{stored.source} {how}"
    return Resampled(
        how,
        config,
        stored=replace(stored, target="", pieces=(), proof=f"{how}; it is {name}", resampled=True),
        added=MatchedTensor(name, target, name, entry, proof=told),
    )
