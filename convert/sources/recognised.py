"""The layout of a checkpoint beside that of its configuration: the same, or another one to convert from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vconv.convert.architectures.base import Capability, Numbers
from vconv.convert.files.safetensors_file import TensorEntry
from vconv.convert.libraries.readers import network
from vconv.convert.network import Network
from vconv.convert.sources.nearest import has_registers, nearest
from vconv.convert.weights.recognition import Fit, recognise, refusal
from vconv.errors import WeightsError
from vconv.types import CONFIG_FILE


def recognised(
    config: dict[str, Any],
    entries: Mapping[str, TensorEntry],
    stated: str | None,
    published: bool,
    theirs: Numbers | None,
) -> tuple[Network, Fit | None]:
    """Find the layout of weights, if it is not that of a configuration.

    Args:
        config: the configuration.
        entries: the tensors.
        stated: the home of their layout; None to recognise it.
        published: whether the configuration is the published one, so that the flags of biases in it say
            nothing of these weights.
        theirs: the numbers in the configuration of another library beside the weights; None without one.

    Returns:
        The network of the configuration, and how the weights fit another layout; None if they have its own.

    Raises:
        WeightsError: the weights have another layout than the stated one, or none that is known.
    """
    own = network(config, entries)
    lack = own.lack(Capability.ROLES)
    if lack and stated:
        raise WeightsError(
            "--weights-layout does not apply to this system",
            got=lack,
            expected="an architecture whose layouts are declared",
            fix="omit --weights-layout",
        )
    if lack:
        return own, None
    shapes = {name: entry.shape for name, entry in entries.items()}
    found = recognise(own, shapes, stated)
    same = found.network.layout is own.layout
    if found.faults or has_registers(found.network) != has_registers(own):
        near = nearest(shapes)
        other = near if near and near.explains(found, own) else None
        if same and not other:
            return own, None  # the conversion says what is wrong with them
        if other:
            raise other.refusal(own)
        raise refusal(found, own.layout, shapes) if found.faults else _other_registers(own)
    if same and (not published or found.network.tensors() == own.tensors()):
        return own, None
    if theirs and not same:
        numbers = replace(found.network.numbers, epsilon=theirs.epsilon, pooling=theirs.pooling)
        found = replace(found, network=replace(found.network, known=numbers))
    return own, found


def _other_registers(own: Network) -> WeightsError:
    wanted = (
        f"the {own.registers} registers of {CONFIG_FILE}"
        if has_registers(own)
        else f"none, as in {CONFIG_FILE}"
    )
    return WeightsError(
        "the checkpoint is of another network, which differs in its registers",
        got="registers" if not has_registers(own) else "no registers",
        expected=wanted,
        fix=f"give the weights of this network, or the {CONFIG_FILE} that belongs to these weights",
    )
