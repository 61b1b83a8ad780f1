"""Reading a transformers ``config.json``: what all of its vision transformers have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vconv.convert.layouts.base import ANY_SIZE, Numbers
from vconv.errors import WeightsError
from vconv.types import Config

EXACT_GELU = ("gelu", "gelu_python")
"""Values of ``hidden_act`` that mean the exact GELU."""
NUM_LABELS = 2
"""Labels that transformers takes where a configuration names none."""


def names(family: str) -> Callable[[Config], bool]:
    """Return the function that tells whether a configuration's ``model_type`` is this one."""
    return lambda config: config.get("model_type") == family


def whole(config: Config, name: str) -> int:
    """Return a whole number of at least 1 from a configuration.

    Raises:
        WeightsError: it is missing, or does not make sense.
    """
    number = config.get(name)
    if isinstance(number, int) and not isinstance(number, bool) and number >= 1:
        return number
    raise WeightsError(
        "config.json is incomplete" if name not in config else "config.json does not make sense",
        got=f"no {name}" if name not in config else f"{name} = {number!r}",
        expected=f"a full {config.get('model_type')} configuration",
        fix="use the config.json that was published with the weights",
    )


def read(
    config: Config,
    defaults: Mapping[str, Any],
    *,
    hidden: Callable[[Config], int],
    gated: str = "",
    pooling: str = "cls",
    learned_positions: bool = True,
    any_size: bool = False,
) -> Numbers:
    """Read a configuration.

    Args:
        config: a ``config.json``.
        defaults: what transformers takes where it leaves a value out.
        hidden: from the configuration to the channels inside an MLP.
        gated: the flag that asks for a gated MLP; empty where there is none.
        pooling: how ``pooled`` comes about.
        learned_positions: whether there is a learned position for each token.
        any_size: whether images of any size are taken.

    Raises:
        WeightsError: it lacks a number, or asks for what vconv does not have.
    """
    config = {**defaults, **config}
    if gated and config.get(gated):
        raise WeightsError(
            "config.json asks for a gated MLP",
            got=f"{gated} = true",
            expected=f"{gated} = false",
            fix="use a variant with a plain MLP; gated ones are not supported yet",
        )
    patch, side = whole(config, "patch_size"), whole(config, "image_size")
    flags = {name for name, value in config.items() if value is True}
    theta = config.get("rope_theta")
    return Numbers(
        width=whole(config, "hidden_size"),
        hidden=hidden(config),
        blocks=whole(config, "num_hidden_layers"),
        heads=whole(config, "num_attention_heads"),
        channels=whole(config, "num_channels"),
        patch=patch,
        registers=int(config.get("num_register_tokens", 0)),
        positions=1 + (side // patch) ** 2 if learned_positions else 0,
        labels=len(config.get("id2label") or ()) or int(config.get("num_labels", NUM_LABELS)),
        image=(side, side),
        flags=frozenset(flags | ({ANY_SIZE} if any_size else set())),
        exact_gelu=config["hidden_act"] in EXACT_GELU,
        rope_base=None if theta is None else float(theta),
        pooling=pooling,
    )
