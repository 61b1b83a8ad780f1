"""The table of outputs: their names, in the order in which they are listed everywhere, and their shapes.

A new output is one row here, and the library that gives it; one that is cut out of the tokens needs the row
alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vconv.convert.architectures.base import CLASSIFIER, Capability
from vconv.convert.network import Network

if TYPE_CHECKING:
    from torch import Tensor

TOKENS = "last_hidden_state"
"""The tokens behind the last block and its norm: class token, registers, patches."""


@dataclass(frozen=True)
class Output:
    """One output.

    Args:
        name: its name, the same everywhere.
        shape: its dimensions behind the batch, from a network and its number of patches.
        has: tells whether a network has it.
        cut: cuts it out of the tokens (B, N, D); None where the library gives it under this name.
    """

    name: str
    shape: Callable[[Network, int], tuple[int, ...]]
    has: Callable[[Network], bool]
    cut: Callable[[Tensor, Network], Tensor] | None = None


def _pooled(network: Network) -> bool:
    """Tell whether there is a pooled output: what is pooled by a pooler needs one."""
    by_layer = network.numbers.pooling == "pooler" and network.head != "pooler"
    return Capability.ROLES in network.capabilities and not by_layer


def _grid(network: Network) -> bool:
    return Capability.TOKEN_GRID in network.capabilities


def _width(network: Network, patches: int) -> tuple[int, ...]:
    return (network.numbers.width,)


OUTPUTS: Mapping[str, Output] = {
    output.name: output
    for output in (
        Output("pooled", _width, _pooled),
        Output("cls", _width, _grid, lambda tokens, network: tokens[:, 0]),
        Output(
            "registers",
            lambda network, patches: (network.registers, network.numbers.width),
            lambda network: _grid(network) and network.registers > 0,
            lambda tokens, network: tokens[:, 1 : 1 + network.registers],
        ),
        Output(
            "patches",
            lambda network, patches: (patches, network.numbers.width),
            _grid,
            lambda tokens, network: tokens[:, 1 + network.registers :],
        ),
        Output(
            TOKENS,
            lambda network, patches: (1 + network.registers + patches, network.numbers.width),
            _grid,
        ),
        Output(
            "logits",
            lambda network, patches: (network.numbers.labels,),
            lambda network: network.head == CLASSIFIER,
        ),
    )
}
"""Every output, by name."""


def output_names(network: Network) -> tuple[str, ...]:
    """List the outputs of a network, in the order that every graph and session keeps."""
    return tuple(name for name, output in OUTPUTS.items() if output.has(network))


def output_shapes(network: Network, batch: int, size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """Return the shape that each output must have for a batch of images of (height, width)."""
    side = network.numbers.patch
    patches = (size[0] // side) * (size[1] // side) if side else 0
    return {name: (batch, *OUTPUTS[name].shape(network, patches)) for name in output_names(network)}


def named_outputs(network: Network, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Complete what a library gives to all outputs of a network.

    Args:
        network: what was run.
        given: the tokens (B, N, D) as :data:`TOKENS`, and what else the library gives, by name.
    """
    found = dict(given)
    if _grid(network):
        # Registers are cut even where there are none: the exporter numbers every operator that it meets, and
        # the same network must stay the same graph, byte for byte.
        found |= {name: row.cut(given[TOKENS], network) for name, row in OUTPUTS.items() if row.cut}
    return {name: found[name] for name in output_names(network)}
