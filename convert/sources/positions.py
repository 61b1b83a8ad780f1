"""The choice of the kernel that resamples a learned position embedding for images of another size."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from vconv.convert.architectures.positions import Kernel
from vconv.convert.network import Network
from vconv.convert.sources.authors import HOME
from vconv.convert.sources.base import AUTHORS, LIBRARYS, Source, require_choice
from vconv.convert.sources.resampled import Resampling, position_key, resample
from vconv.convert.sources.sizes import SizeRequest
from vconv.convert.weights.ledger import MatchedTensor, match_tensors
from vconv.errors import InputError

POSITIONS = (AUTHORS, LIBRARYS)
"""Choices of the kernel: that of the authors, or of the library."""


def authors_kernel(net: Network) -> Kernel | None:
    """Return the kernel of the authors of a network if its library has another one; else None."""
    ours, theirs = net.layout.kernel, net.layout.architecture.kernel
    return theirs if ours and theirs and not net.registers else None


def grid_of(size: tuple[int, int], patch: int) -> tuple[int, int]:
    """Return the (rows, columns) of the patches of an image of (height, width)."""
    return size[0] // patch, size[1] // patch


def librarys_resampling(net: Network, size: tuple[int, int]) -> Resampling | None:
    """Return how a library resamples the position embedding of a network when it runs it.

    Args:
        net: the network.
        size: (height, width) of the images.

    Returns:
        None if it does not: the embedding is stored for this size, or there is none.
    """
    if net.observed or net.layout.kernel is None or not net.numbers.positions or size == net.numbers.image:
        return None
    patch = net.numbers.patch
    return Resampling(net.library, net.layout.kernel, grid_of(net.numbers.image, patch), grid_of(size, patch))


def resampled_otherwise(source: Source) -> bool:
    """Return whether weights of the authors lose their kernel although the artifact could keep it."""
    net, dynamic = source.network, source.size is not None and source.size.dynamic
    if source.stored.layout.home != HOME or source.positions or dynamic or not authors_kernel(net):
        return False
    return librarys_resampling(net, source.image_size) is not None


def with_how(source: Source, matches: Iterable[MatchedTensor]) -> list[MatchedTensor]:
    """Return the tensors of a checkpoint with what is done to the position embedding, and by which kernel."""
    if source.resampled:
        return source.resampled.placed(matches)
    net, found = source.network, list(matches)
    how = librarys_resampling(net, source.image_size)
    if how is None:
        return found
    target = net.stored_key(net.tensors()[position_key(net)])
    told = f"resampled {how}, whenever the model runs"
    return [replace(pair, proof=told) if pair.target == target and not pair.proof else pair for pair in found]


def with_positions(source: Source, positions: str) -> Source:
    """Choose the kernel; with the authors', resample the position embedding for the size of the images.

    Raises:
        InputError: the network has no such choice, or the embedding need not or cannot be resampled once.
        WeightsError: the embedding is not finite.
    """
    net = source.network
    require_choice("--positions", positions, POSITIONS)
    kernel = authors_kernel(net)
    if kernel is None:
        raise InputError(
            "--positions does not apply to this system",
            got=f"the architecture {net.layout.family}"
            + " with registers" * bool(net.layout.architecture.kernel),
            expected="a DINOv2 without registers, whose authors resample in another way than its library",
            fix="omit --positions",
        )
    if positions == LIBRARYS:
        return replace(source, positions=positions)
    if source.size and source.size.dynamic:
        raise InputError(
            "--positions authors is not used with --size dynamic",
            got="both",
            expected="one size: the position embedding is resampled once, and stored for that size",
            fix="give --size H,W, or omit --positions",
        )
    size, numbers = source.image_size, net.numbers
    SizeRequest(size).require_fitting(numbers.patch)
    if size == numbers.image:
        raise InputError(
            "--positions authors changes nothing at this size",
            got="{}x{}, for which the position embedding is stored".format(*size),
            expected="another size",
            fix="omit --positions, or give --size H,W",
        )
    config = source.library.stored_for(source.config, size)
    if config is None:
        raise InputError(
            "--positions authors does not apply to this size",
            got="{}x{} for {}".format(*size, net.library),
            expected=f"a square: a config.json of {net.library} describes no other position embedding",
            fix="give --size {0},{0}, or --layout timm".format(max(size)),
        )
    how = Resampling(AUTHORS, kernel, grid_of(numbers.image, numbers.patch), grid_of(size, numbers.patch))
    matches = source.matches or match_tensors(net, source.original)
    made = resample(net, matches, how, config, source.folder)
    return replace(source, positions=positions, resampled=made, entries={**source.entries, **made.entries})
