"""A checkpoint in the layout of its configuration: as it came, or converted if it has another layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vconv.convert.architectures.base import Capability, Numbers
from vconv.convert.files.safetensors_file import TensorEntry
from vconv.convert.libraries.readers import network
from vconv.convert.sources.regrouping import Regrouped, regroup
from vconv.convert.weights.recognition import recognise, refusal
from vconv.errors import WeightsError
from vconv.types import Say


def in_layout_of(
    config: dict[str, Any],
    entries: Mapping[str, TensorEntry],
    scratch: Path,
    stated: str | None,
    published: bool,
    theirs: Numbers | None,
    say: Say,
) -> tuple[dict[str, Any], Regrouped | None]:
    """Make weights in another layout into weights in that of a configuration, if they do not have it.

    Args:
        config: the configuration.
        entries: the tensors.
        scratch: the folder with the weights.
        stated: the home of their layout; None to recognise it.
        published: whether the configuration is the published one, so that the flags of biases in it say
            nothing of these weights.
        theirs: the numbers in the configuration of another library beside the weights; None without one.
        say: receives progress lines.

    Returns:
        The configuration of the original, and how it was made; None if the weights have its layout.

    Raises:
        WeightsError: the weights have another layout than the stated one, or cannot be converted.
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
        return config, None
    shapes = {name: entry.shape for name, entry in entries.items()}
    found = recognise(own, shapes, stated)
    same = found.network.layout is own.layout
    if same and (not published or found.network.tensors() == own.tensors()):
        return config, None
    if found.faults:
        if same:
            return config, None  # the conversion says what is wrong with them
        raise refusal(found, own.layout, shapes)
    if theirs and not same:
        numbers = replace(found.network.numbers, epsilon=theirs.epsilon, pooling=theirs.pooling)
        found = replace(found, network=replace(found.network, known=numbers))
    regrouped = regroup(found, config, scratch, say)
    return dict(regrouped.config), regrouped
