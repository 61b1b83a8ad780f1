"""Outputs of single blocks, asked for by the number of the block: feature maps, tokens and attention.

Block N is the Nth of all blocks, counted from 1; 0 stands for the tokens before the first block, which
transformers' backbones call the stem. An output without ``raw_`` in its name has the network's final norm, as
transformers' backbones (``apply_layernorm``) and timm's ``get_intermediate_layers(norm=True)`` give it. One
with ``raw_`` has no norm, as timm's ``features_only`` gives it.

In a network whose width changes, the numbers are those of its stages, and both kinds of feature maps are what
a stage gives, as both libraries give it: its final norm fits the last stage only, and is not applied.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from vconv.convert.architectures.base import Capability
from vconv.convert.network import Network

if TYPE_CHECKING:
    from torch import Tensor

RAW = "raw_"
"""The first part of the name of an output without the final norm."""
ATTENTION = "attention"
"""The attention probabilities of a block."""
FEATURE_MAP, CLS, PATCHES, TOKENS = "feature_map", "cls", "patches", "tokens"
"""The patch tokens after a block as a grid; the class token, the patch tokens, and all tokens."""
WITHOUT = "without the final norm"
ATTENTION_PARTS = ("norm1", "query", "key")
"""The parts of a block that its attention probabilities need."""
_SEPARATOR = "_"
DIGITS = 5
"""The most digits of the number of a block."""
_NUMBER = re.compile(rf"0|[1-9][0-9]{{0,{DIGITS - 1}}}")
"""The number of a block as :func:`named` writes it, so that an output has one name only."""


class Grid(NamedTuple):
    """The rows and columns of patches of an image. Their numbers are symbols in a graph for any size."""

    rows: int
    columns: int

    @property
    def patches(self) -> int:
        """The number of patches."""
        return self.rows * self.columns


def _tokens(network: Network, grid: Grid) -> int:
    return 1 + network.registers + grid.patches


def _grid_of(tokens: Tensor, network: Network, grid: Grid) -> Tensor:
    patches = tokens[:, 1 + network.registers :]
    return patches.transpose(1, 2).reshape(patches.shape[0], patches.shape[2], *grid)


@dataclass(frozen=True)
class LayerOutput:
    """A kind of output that every block has, or every stage.

    Args:
        name: its name, before the number of the block.
        told: what it is, in words.
        shape: returns its shape without the batch, from the number of the block too.
        cut: takes it from what the block gives, such as tokens (B, N, D); None for attention, which the
            library gives.
        normed: whether the final norm is applied to the tokens first.
    """

    name: str
    told: str
    shape: Callable[[Network, Grid, int], tuple[int, ...]]
    cut: Callable[[Tensor, Network, Grid], Tensor] | None
    normed: bool


_CUTS = (
    LayerOutput(
        FEATURE_MAP,
        "the patch tokens as (D, rows, columns)",
        lambda network, grid, number: (network.numbers.width, *grid),
        _grid_of,
        normed=True,
    ),
    LayerOutput(
        CLS,
        "the class token",
        lambda network, grid, number: (network.numbers.width,),
        lambda tokens, network, grid: tokens[:, 0],
        normed=True,
    ),
    LayerOutput(
        PATCHES,
        "the patch tokens",
        lambda network, grid, number: (grid.patches, network.numbers.width),
        lambda tokens, network, grid: tokens[:, 1 + network.registers :],
        normed=True,
    ),
    LayerOutput(
        TOKENS,
        "all tokens",
        lambda network, grid, number: (_tokens(network, grid), network.numbers.width),
        lambda tokens, network, grid: tokens,
        normed=True,
    ),
)
LAYER_OUTPUTS: Mapping[str, LayerOutput] = {
    row.name: row
    for row in (
        *_CUTS,
        *(LayerOutput(RAW + row.name, row.told, row.shape, row.cut, normed=False) for row in _CUTS),
        LayerOutput(
            ATTENTION,
            "the attention probabilities",
            lambda network, grid, number: (network.numbers.heads, *(_tokens(network, grid),) * 2),
            None,
            normed=False,
        ),
    )
}
"""Every kind, by name."""


def finer(network: Network, stage: int) -> int:
    """Return how many cells of a stage's grid, along one side, are in a patch of the network."""
    return int(2 ** (len(network.stages) - stage))


def _stage_shape(network: Network, grid: Grid, stage: int) -> tuple[int, ...]:
    cells = finer(network, stage)
    return network.stages[stage - 1].width, grid.rows * cells, grid.columns * cells


@dataclass(frozen=True)
class Levels:
    """What the numbers of such outputs count in a network.

    Args:
        name: what they count.
        part: the first name of the parts of the architecture that belong to one.
        kinds: the kinds of output that each has, by name.
        needs: what must be known of the network.
        count: returns how many a network has.
        blocks: returns the number of blocks in the first so many.
    """

    name: str
    part: str
    kinds: Mapping[str, LayerOutput]
    needs: tuple[Capability, ...]
    count: Callable[[Network], int]
    blocks: Callable[[Network, int], int]


BLOCKS = Levels(
    "block",
    "blocks",
    LAYER_OUTPUTS,
    (Capability.BLOCKS, Capability.TOKEN_GRID),
    lambda network: network.blocks,
    lambda network, number: number,
)
STAGES = Levels(
    "stage",
    "stages",
    {
        name: LayerOutput(name, "the feature map", _stage_shape, lambda found, network, grid: found, False)
        for name in (FEATURE_MAP, RAW + FEATURE_MAP)
    },
    (Capability.TOKEN_GRID,),
    lambda network: len(network.stages),
    lambda network, number: network.numbers.first_block(number),
)


def levels_of(network: Network) -> Levels:
    """Return what the numbers of such outputs count in a network: its stages if its width changes."""
    return STAGES if network.stages else BLOCKS


class Layer(NamedTuple):
    """One output of one block, or of one stage.

    Args:
        kind: its kind.
        block: the number of the block or stage, from 1; 0 for the tokens before the first block.
    """

    kind: LayerOutput
    block: int

    @property
    def name(self) -> str:
        """Its name in every graph and report."""
        return named(self.kind.name, self.block)

    @property
    def whole_blocks(self) -> int:
        """The number of blocks, or stages, whose tokens it needs."""
        return self.block - (self.kind.cut is None)

    def meaning(self, network: Network) -> str:
        """Return what it is, in words."""
        levels = levels_of(network)
        which = f"{levels.name} {self.block} of {levels.count(network)}"
        if self.kind.cut is None:
            return f"{self.kind.told} of {which}"
        place = f"after {which}" if self.block else f"before the first {levels.name}"
        norm = "with the final norm" if self.kind.normed else WITHOUT
        return f"{self.kind.told} {place}, {norm}"


def named(kind: str, block: int) -> str:
    """Return the name of an output of a block."""
    return f"{kind}{_SEPARATOR}{block}"


def find_layer(name: str, levels: Levels = BLOCKS) -> Layer | None:
    """Return the output of a block that has this name; None if the name is not of this form."""
    kind, _, number = name.rpartition(_SEPARATOR)
    if kind not in levels.kinds or not _NUMBER.fullmatch(number):
        return None
    return Layer(levels.kinds[kind], int(number))


def layers_of(network: Network) -> tuple[Layer, ...]:
    """List the outputs of single blocks, or of stages, that a network is asked for."""
    levels = levels_of(network)
    return tuple(layer for name in network.asked if (layer := find_layer(name, levels)))
