"""The sizes of images that a graph of a network can take, if height and width are dynamic."""

from __future__ import annotations

from dataclasses import dataclass

from vconv.convert.architectures.base import ANY_SIZE, GREATEST_SIDE, ON_REQUEST, Capability
from vconv.convert.network import Network

_LEAST_PATCHES = 2
"""The least rows and columns of patches: torch.export treats a length of 1 apart, because it broadcasts."""


@dataclass(frozen=True)
class SideBounds:
    """The heights, and likewise the widths, that a graph for images of any size takes.

    Args:
        least: the least one, in pixels.
        greatest: the greatest one, in pixels.
        multiple: each is a multiple of this: the side of a patch.
    """

    least: int
    greatest: int
    multiple: int


def size_bounds(network: Network) -> SideBounds:
    """Return the bounds of the height and the width of a network that takes images of any size."""
    patch = network.numbers.patch
    return SideBounds(_LEAST_PATCHES * patch, GREATEST_SIDE // patch * patch, patch)


def unasked_size(network: Network) -> tuple[int, int] | None:
    """Return the one (height, width) at which a library runs a network without being asked for the size.

    None if it is never asked. It is asked when the model is called: see ``vconv.convert.libraries``.
    """
    if network.observed:
        return network.observed.unasked_size
    return network.numbers.image if ON_REQUEST in network.numbers.flags else None


def fixed_size(network: Network) -> str:
    """Return why a network takes images of one size only; empty if it takes any."""
    lack = network.lack(Capability.TOKEN_GRID)
    if lack:
        return lack
    if {ANY_SIZE, ON_REQUEST} & network.numbers.flags:
        return ""
    return f"{network.library} runs a {network.layout.family} of this configuration at one size only"
