"""The table of outputs: their names and shapes, in the order that every graph and report uses.

A new output needs one row here, and a library that returns it. An output that is a slice of the tokens needs
only the row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vconv.convert.architectures.base import CLASSIFIER, POOLER, Capability
from vconv.convert.network import Network
from vconv.types import PATCHES_AXIS, TOKENS_AXIS

if TYPE_CHECKING:
    from torch import Tensor

_COUNTS = (6, 35)
"""Two numbers of patches, to see which axes of an output depend on it."""
TOKENS = "last_hidden_state"
"""The tokens after the last block and the final norm: class token, registers, patches."""


@dataclass(frozen=True)
class Output:
    """One output.

    Args:
        name: its name in every graph and report.
        shape: returns its shape without the batch, from a network and its number of patches.
        has: returns whether a network has this output.
        cut: slices it from the tokens (B, N, D); None if the library returns it under this name.
    """

    name: str
    shape: Callable[[Network, int], tuple[int, ...]]
    has: Callable[[Network], bool]
    cut: Callable[[Tensor, Network], Tensor] | None = None


def _pooled(network: Network) -> bool:
    """Return whether there is a pooled output. The pooling ``pooler`` needs the head ``pooler``."""
    by_layer = network.pooling == POOLER and network.head != POOLER
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
            lambda network, patches: (network.known.labels,),
            lambda network: network.head == CLASSIFIER,
        ),
    )
}
"""Every output, by name."""


def output_names(network: Network) -> tuple[str, ...]:
    """List the outputs of a network, in the order that every graph and session uses."""
    if network.observed:
        return network.observed.outputs
    return tuple(name for name, output in OUTPUTS.items() if output.has(network))


def output_shapes(network: Network, batch: int, size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """Return the shape that each output must have for a batch of images of (height, width)."""
    if network.observed:
        return {name: (batch, *shape[1:]) for name, shape in network.observed.shapes_at(size).items()}
    side = network.numbers.patch
    patches = (size[0] // side) * (size[1] // side) if side else 0
    return {name: (batch, *OUTPUTS[name].shape(network, patches)) for name in output_names(network)}


def shapes_at_any_size(network: Network) -> dict[str, tuple[int | str, ...]]:
    """Return the shape that each output has for images of any size, without the batch.

    Axes that depend on the size are named; a length that changes with the number of patches is one of them.
    """
    fewer, more = ({name: row.shape(network, count) for name, row in _rows(network)} for count in _COUNTS)

    def named(few: int, many: int) -> int | str:
        if few == many:
            return few
        return PATCHES_AXIS if (few, many) == _COUNTS else TOKENS_AXIS

    return {name: tuple(map(named, fewer[name], more[name])) for name in fewer}


def _rows(network: Network) -> list[tuple[str, Output]]:
    return [(name, OUTPUTS[name]) for name in output_names(network)]


def named_outputs(network: Network, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return all outputs of a network, from the tensors that its library returns.

    Args:
        network: the network that was run.
        given: the tensors that the library returns, by name. The tokens (B, N, D) are under :data:`TOKENS`.
    """
    found = dict(given)
    if _grid(network):
        # Registers are sliced even if there are none. The exporter numbers every operator that it meets, and
        # the graph of a network must stay the same, byte for byte.
        found |= {name: row.cut(given[TOKENS], network) for name, row in OUTPUTS.items() if row.cut}
    return {name: found[name] for name in output_names(network)}
