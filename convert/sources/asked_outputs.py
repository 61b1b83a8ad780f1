"""The outputs that a user asks for: read from text, and checked against a network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from vconv.convert.architectures.base import FINAL_NORM, Capability
from vconv.convert.architectures.layer_outputs import (
    DIGITS,
    FEATURE_MAP,
    LAYER_OUTPUTS,
    RAW,
    Layer,
    find_layer,
    levels_of,
    named,
)
from vconv.convert.architectures.outputs import OUTPUTS, Needed, is_output, own_outputs, place_of
from vconv.convert.libraries.table import library_of
from vconv.convert.network import Network
from vconv.errors import InputError, OutputsError, UnknownNameError, VconvError

_OPTION = "--outputs"
_EXAMPLE = "such as pooled,cls,feature_map:3,6,9,12"


def read_outputs(text: str) -> tuple[str, ...]:
    """Read names of outputs, separated by commas; the numbers of blocks follow their name and a colon.

    Args:
        text: such as ``pooled,cls,feature_map:3,6,9,12,attention:12``. The names in reports, such as
            ``feature_map_3``, are read too.

    Returns:
        The names, in the order of all outputs.

    Raises:
        InputError: there is none, one is there twice, or a number is missing or stands alone.
        UnknownNameError: there is no such output.
    """
    found = list(_names(re.sub(r"\s", "", text)))
    twice = next((name for name in found if found.count(name) > 1), "")
    if twice:
        raise InputError(
            f"{_OPTION} names an output twice", got=twice, expected="each once", fix="leave one of them out"
        )
    return tuple(sorted(found, key=place_of))


def _names(text: str) -> Iterator[str]:
    kind = ""
    for word in text.split(","):
        name, colon, number = word.partition(":")
        if colon or (kind and word.isdigit()):
            kind, number = (name, number) if colon else (kind, word)
            yield _of_block(kind, number)
            continue
        kind = ""
        if not is_output(name):
            raise _unknown(name, text)
        yield name


def _of_block(kind: str, number: str) -> str:
    if kind not in LAYER_OUTPUTS:
        raise UnknownNameError("output of a block", kind, LAYER_OUTPUTS, fix="name one of those")
    if not re.fullmatch(rf"[0-9]{{1,{DIGITS}}}", number):
        raise _without_number(kind, f"{kind}:{number}")
    return named(kind, int(number))


def _without_number(kind: str, got: str) -> VconvError:
    return InputError(
        f"{_OPTION} does not name a block",
        got=got,
        expected=f"{kind} and the number of a block, such as {kind}:3",
        fix="give the numbers after a colon, separated by commas",
    )


def _unknown(name: str, text: str) -> VconvError:
    if name in LAYER_OUTPUTS:
        return _without_number(name, name)
    if not name:
        return InputError(
            f"{_OPTION} lacks a name", got=repr(text), expected=f"names, {_EXAMPLE}", fix="name the outputs"
        )
    known = [*OUTPUTS, *(f"{kind}:N" for kind in LAYER_OUTPUTS)]
    return UnknownNameError("output", name, known, fix=f"name outputs, {_EXAMPLE}")


def asking(network: Network, names: Iterable[str]) -> Network:
    """Return a network with the outputs that are asked for.

    Raises:
        OutputsError: it has not all of them, or needs no block for any.
    """
    own, names = own_outputs(network), tuple(names)
    if network.asked:
        return _backbone(network, names)
    for name in names:
        lack = _lack(network, name, own)
        if lack:
            raise OutputsError(
                f"the network has no output {name}",
                got=lack,
                expected=f"one of {', '.join(own)}, or {_further(network)}",
                fix=f"leave it out of {_OPTION}",
            )
    if network.observed:
        return _all_of(network, names, own)
    _require_different(network, names)
    asked = replace(network, asked=names)
    needed = Needed.by(asked)
    if not needed.blocks and not needed.attention:
        raise OutputsError(
            f"{_OPTION} names nothing that a block computes",
            got=", ".join(names),
            expected="an output after the first block",
            fix="name a further output",
        )
    return asked


def _require_different(network: Network, names: tuple[str, ...]) -> None:
    """Refuse two names of the same feature map: no final norm tells the stages of a ConvNeXt apart."""
    same = [name for name in names if network.stages and f"{RAW}{name}" in names]
    if same:
        raise OutputsError(
            f"{_OPTION} names the same output twice",
            got=f"{same[0]} and {RAW}{same[0]}, which are the same for a {network.layout.family}",
            expected="each output once",
            fix="leave one of them out",
        )


def _further(network: Network) -> str:
    """Return in words which outputs a network has besides its own."""
    if network.observed and library_of(network).features:
        return f"{RAW}{FEATURE_MAP}:N alone, the levels of timm's features_only"
    return f"an output of a {levels_of(network).name}"


def _backbone(network: Network, names: tuple[str, ...]) -> Network:
    if names == network.asked:
        return network
    raise OutputsError(
        f"{_OPTION} does not apply to a backbone, which is exported as it is",
        got=", ".join(names),
        expected=f"the feature maps that config.json names: {', '.join(network.asked)}",
        fix=f"leave {_OPTION} out, or let config.json name the plain model",
    )


def _all_of(network: Network, names: tuple[str, ...], own: tuple[str, ...]) -> Network:
    if set(names) == set(own):
        return network
    raise OutputsError(
        f"{_OPTION} cannot leave outputs of this system out",
        got=f"{', '.join(names)}: {network.lack(Capability.ROLES)}",
        expected=f"all that its library returns: {', '.join(own)}",
        fix=f"leave {_OPTION} out",
    )


def _lack(network: Network, name: str, own: tuple[str, ...]) -> str:
    """Return why a network has not an output; empty if it has."""
    if name in own:
        return ""
    levels = levels_of(network)
    layer = find_layer(name, levels)
    if layer:
        return network.lack(*levels.needs) or _lack_of_layer(network, layer)
    if find_layer(name):
        return f"a network whose stages have {' and '.join(levels.kinds)}"
    return f"a {network.layout.family} with {network.head or 'no head'}"


def _lack_of_layer(network: Network, layer: Layer) -> str:
    levels, first = levels_of(network), int(layer.kind.cut is None or bool(network.stages))
    if not first <= layer.block <= levels.count(network):
        one = levels.name
        return f"{one} {layer.block} of a network with the {one}s {first} to {levels.count(network)}"
    if layer.kind.normed and not any(f"{FINAL_NORM}.weight" in group.parts for group in network.groups()):
        return f"no final norm of its tokens; {RAW}{layer.kind.name}:{layer.block} has none"
    return ""
