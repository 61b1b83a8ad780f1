"""The table of outputs: their names and shapes, in the order that every graph and report uses.

A new output needs one row here, and a library that returns it. An output that is a slice of the tokens needs
only the row. Those of single blocks are in :mod:`.layer_outputs`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vconv.convert.architectures.base import CLASSIFIER, FINAL_NORM, POOLER, Capability
from vconv.convert.architectures.layer_outputs import (
    ATTENTION_PARTS,
    LAYER_OUTPUTS,
    WITHOUT,
    Grid,
    find_layer,
    finer,
    layers_of,
    levels_of,
)
from vconv.convert.network import Network
from vconv.types import COLUMNS_AXIS, PATCHES_AXIS, ROWS_AXIS, TOKENS_AXIS, finer_axis

if TYPE_CHECKING:
    from torch import Tensor

_GRIDS = (Grid(2, 3), Grid(5, 7))
"""Two grids of patches, to see which axes of an output depend on them."""
TOKENS = "last_hidden_state"
"""The tokens after the last block and the final norm: class token, registers, patches."""


@dataclass(frozen=True)
class Output:
    """One output.

    Args:
        name: its name in every graph and report.
        shape: returns its shape without the batch, from a network and its grid of patches.
        has: returns whether a network has this output.
        cut: slices it from the tokens (B, N, D); None if the library returns it under this name.
    """

    name: str
    shape: Callable[[Network, Grid], tuple[int, ...]]
    has: Callable[[Network], bool]
    cut: Callable[[Tensor, Network], Tensor] | None = None


def _pooled(network: Network) -> bool:
    """Return whether there is a pooled output. The pooling ``pooler`` needs the head ``pooler``."""
    by_layer = network.pooling == POOLER and network.head != POOLER
    return Capability.ROLES in network.capabilities and not by_layer


def _grid(network: Network) -> bool:
    return Capability.TOKEN_GRID in network.capabilities


def _width(network: Network, grid: Grid) -> tuple[int, ...]:
    return (network.numbers.width,)


OUTPUTS: Mapping[str, Output] = {
    output.name: output
    for output in (
        Output("pooled", _width, _pooled),
        Output("cls", _width, _grid, lambda tokens, network: tokens[:, 0]),
        Output(
            "registers",
            lambda network, grid: (network.registers, network.numbers.width),
            lambda network: _grid(network) and network.registers > 0,
            lambda tokens, network: tokens[:, 1 : 1 + network.registers],
        ),
        Output(
            "patches",
            lambda network, grid: (grid.patches, network.numbers.width),
            _grid,
            lambda tokens, network: tokens[:, 1 + network.registers :],
        ),
        Output(
            TOKENS,
            lambda network, grid: (1 + network.registers + grid.patches, network.numbers.width),
            _grid,
        ),
        Output(
            "logits",
            lambda network, grid: (network.known.labels,),
            lambda network: network.head == CLASSIFIER,
        ),
    )
}
"""Every output, by name."""


def own_outputs(network: Network) -> tuple[str, ...]:
    """List the outputs that a network has by itself, without those of single blocks."""
    if network.observed:
        return network.observed.outputs
    return tuple(name for name, output in OUTPUTS.items() if output.has(network))


def output_names(network: Network) -> tuple[str, ...]:
    """List the outputs of a network, in the order that every graph and session uses."""
    return network.asked or own_outputs(network)


def output_shapes(network: Network, batch: int, size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """Return the shape that each output must have for a batch of images of (height, width)."""
    if network.observed:
        return {name: (batch, *shape[1:]) for name, shape in network.observed.shapes_at(size).items()}
    side = network.numbers.patch
    grid = Grid(size[0] // side, size[1] // side) if side else Grid(0, 0)
    return {name: (batch, *_shape(name, network, grid)) for name in output_names(network)}


def shapes_at_any_size(network: Network) -> dict[str, tuple[int | str, ...]]:
    """Return the shape that each output has for images of any size, without the batch.

    Axes that depend on the size are named: the rows, the columns or the number of patches; a length that
    changes with the number of patches is that of the tokens.
    """
    fewer, more = ({name: _shape(name, network, grid) for name in output_names(network)} for grid in _GRIDS)
    names = {(_GRIDS[0].patches, _GRIDS[1].patches): PATCHES_AXIS}
    for cells in {finer(network, layer.block) if network.stages else 1 for layer in layers_of(network)}:
        for axis, few, many in zip((ROWS_AXIS, COLUMNS_AXIS), *_GRIDS, strict=True):
            names[few * cells, many * cells] = finer_axis(axis, cells)

    def named(few: int, many: int) -> int | str:
        return few if few == many else names.get((few, many), TOKENS_AXIS)

    return {name: tuple(map(named, fewer[name], more[name])) for name in fewer}


def _shape(name: str, network: Network, grid: Grid) -> tuple[int, ...]:
    layer = find_layer(name, levels_of(network))
    return layer.kind.shape(network, grid, layer.block) if layer else OUTPUTS[name].shape(network, grid)


def is_output(name: str) -> bool:
    """Return whether there is an output of this name, in any network."""
    return name in OUTPUTS or find_layer(name) is not None


def place_of(name: str) -> tuple[int, int]:
    """Return the place of an output in the order of all outputs; those of single blocks come last."""
    layer = find_layer(name)
    if layer is None:
        return list(OUTPUTS).index(name), 0
    return len(OUTPUTS) + list(LAYER_OUTPUTS).index(layer.kind.name), layer.block


def meanings(network: Network) -> dict[str, str]:
    """Return what each output of a single block is, in words: which block, and with the final norm or not."""
    if network.observed:
        levels = filter(None, map(find_layer, network.observed.outputs))
        return {
            layer.name: f"level {layer.block} of the feature maps of its library, {WITHOUT}"
            for layer in levels
        }
    return {layer.name: layer.meaning(network) for layer in layers_of(network)}


def named_outputs(network: Network, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return all outputs of a network, from the tensors that its library returns.

    Args:
        network: the network that was run.
        given: the tensors that the library returns, by name, and the outputs of single blocks. The tokens
            (B, N, D) are under :data:`TOKENS`.
    """
    found = dict(given)
    if _grid(network) and TOKENS in given:
        # Registers are sliced even if there are none. The exporter numbers every operator that it meets, and
        # the graph of a network must stay the same, byte for byte.
        found |= {name: row.cut(given[TOKENS], network) for name, row in OUTPUTS.items() if row.cut}
    return {name: found[name] for name in output_names(network)}


@dataclass(frozen=True)
class Needed:
    """What the outputs of a network need of it: the part of the network that its graphs compute.

    Args:
        part: the first name of the parts of a block, or of a stage.
        levels: the number of blocks, or stages, whose tokens are needed.
        blocks: the number of blocks whose tokens are needed.
        attention: the numbers of the blocks whose attention is needed, from 1.
        outputs: the outputs that come after the last block.
        norm: whether the final norm is applied.
    """

    part: str
    levels: int
    blocks: int
    attention: frozenset[int]
    outputs: frozenset[str]
    norm: bool

    @classmethod
    def by(cls, network: Network) -> Needed:
        """Return what the outputs of a network need."""
        layers = layers_of(network)
        after = frozenset(output_names(network)) - {layer.name for layer in layers}
        levels = levels_of(network)
        deepest = max((layer.whole_blocks for layer in layers), default=0)
        count = levels.count(network) if after else deepest
        return cls(
            part=levels.part,
            levels=count,
            blocks=levels.blocks(network, count),
            attention=frozenset(layer.block for layer in layers if layer.kind.cut is None),
            outputs=after,
            norm=bool(after) or any(layer.kind.normed for layer in layers),
        )

    def uses(self, part: str) -> bool:
        """Return whether a part of the architecture is needed."""
        first, _, rest = part.partition(".")
        if first == self.part:
            number, _, rest = rest.partition(".")
            own = int(number) + 1 in self.attention and rest.partition(".")[0] in ATTENTION_PARTS
            return int(number) < self.levels or own
        return {
            FINAL_NORM: self.norm,
            "pooled_norm": bool({"pooled", "logits"} & self.outputs),
            POOLER: "pooled" in self.outputs,
            CLASSIFIER: "logits" in self.outputs,
            "wide_classifier": "logits" in self.outputs,
        }.get(first, True)


def unused_tensors(network: Network) -> frozenset[str]:
    """Return the keys on disk of the tensors that no output of a network needs."""
    if not network.asked or network.observed:
        return network.unused
    needed = Needed.by(network)
    return network.unused | {
        network.stored_key(tensor)
        for group in network.groups()
        if not any(map(needed.uses, group.parts))
        for tensor in group.stored
    }


def gelus_needed(network: Network) -> int:
    """Return how often a graph of a network computes the exact GELU: once a block that its outputs need."""
    if not network.asked or network.observed:
        return network.gelus
    return Needed.by(network).blocks if network.known.exact_gelu else 0
