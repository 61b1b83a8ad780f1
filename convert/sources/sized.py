"""A source whose original is run at another size of images, by its own library."""

from __future__ import annotations

from vconv.convert.architectures.base import GREATEST_SIDE, Capability
from vconv.convert.architectures.outputs import output_shapes
from vconv.convert.architectures.sizes import fixed_size
from vconv.convert.libraries import derivation
from vconv.convert.libraries.readers import network
from vconv.convert.network import Network
from vconv.convert.sources.base import Source
from vconv.convert.sources.sizes import DYNAMIC, SizeRequest
from vconv.errors import InputError, VconvError
from vconv.types import Config

_REFUSED = "--size does not apply to this system"


def sized(source: Source, size: SizeRequest) -> Source:
    """Let the original's own library make and take images of the requested sizes.

    Raises:
        InputError: it does not.
    """
    return _sized_beyond(source, size) if source.network.observed else _sized_grid(source, size)


def _sized_grid(source: Source, size: SizeRequest) -> Source:
    size.require_fitting(source.network.numbers.patch)
    config, preprocessor = source.library.resized(source.config, source.preprocessor, size.fixed)
    made = source.configured(config, preprocessor, size=size)
    if lack := fixed_size(made.network):
        raise InputError(
            _REFUSED,
            got=lack,
            expected="an architecture that its library runs at other sizes",
            fix="omit --size",
        )
    return made


def _sized_beyond(source: Source, size: SizeRequest) -> Source:
    """Take the first way of the library in which a network whose layout is derived runs at a size."""
    if size.fixed is None or size.dynamic:
        raise InputError(
            f"--size {DYNAMIC} does not apply to this system",
            got=source.network.lack(Capability.TOKEN_GRID),
            expected="a grid of patches",
            fix="give one size, as --size H,W",
        )
    if not all(1 <= side <= GREATEST_SIDE for side in size.fixed):
        raise InputError(
            "--size is out of range",
            got="{},{}".format(*size.fixed),
            expected=f"1 to {GREATEST_SIDE} pixels",
            fix="give a smaller size, or omit --size",
        )
    refusals = []
    for config, preprocessor in source.library.beyond.resized(source.config, source.preprocessor, size.fixed):
        refusal = _refusal(source, config, size.fixed)
        if not refusal:
            made = source.configured(config, preprocessor, size=size)
            if size.fixed != source.image_size and (patch := derivation.cut_off(made.network, size.fixed)):
                size.require_fitting(patch)
            return made
        refusals.append(refusal)
    own = "{}x{}".format(*source.image_size)
    refusals = refusals or ["a network that is built for one size, which decides the shape of its tensors"]
    raise InputError(
        f"{source.library.name} does not run this network at this size",
        got="; ".join(dict.fromkeys(refusals)),
        expected=f"a size at which {source.library.name} runs it with the same weights, such as {own}",
        fix="omit --size, or give another size",
    )


def _refusal(source: Source, config: Config, size: tuple[int, int]) -> str:
    """Return why a configuration does not run a source's weights at a size; empty if it does."""
    try:
        made = network(config, source.original)
        output_shapes(made, 1, size)
    except VconvError as error:
        return str(error.got).rstrip(": ")
    before, after = _shapes(source.network), _shapes(made)
    changed = next((key for key in {**before, **after} if after.get(key) != before.get(key)), "")
    return f"built for {size[0]}x{size[1]}, it has another shape of {changed}" if changed else ""


def _shapes(net: Network) -> dict[str, tuple[int, ...]]:
    return {key: tensor.shape for key, tensor in net.tensors().items()}
