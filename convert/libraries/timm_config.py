"""Reading a timm ``config.json``.

The file names an architecture and the arguments that differ from its defaults (``model_args``). The numbers
themselves are in timm's code. So timm builds the model without weights, and vconv reads the numbers from the
model.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from vconv.convert.architectures.base import ANY_SIZE, CLASSIFIER, NO_CLS_POSITION, Numbers
from vconv.errors import WeightsError
from vconv.types import Config

ACTIVATIONS = (
    "GELU",
    "GELUTanh",
    "QuickGELU",
    "SiLU",
    "Swish",
    "ReLU",
    "ReLU6",
    "LeakyReLU",
    "Sigmoid",
    "Tanh",
)
"""Classes of the activations that are exported."""
_GREATEST: Mapping[str, int] = {"depth": 1_000, "num_classes": 1_000_000}
_GREATEST_OTHER = 65_536
"""The greatest numbers that a configuration may hold."""


def names(pattern: str) -> Callable[[Config], bool]:
    """Return a function that checks whether a configuration's ``architecture`` matches the pattern."""
    return lambda config: bool(re.fullmatch(pattern, str(config.get("architecture", ""))))


def read(config: Config) -> Numbers:
    """Read a configuration.

    Raises:
        WeightsError: timm cannot build the model, or it uses an option that vconv does not support.
    """
    return _read(json.dumps(dict(config), sort_keys=True))


def _refuse_excess(config: Config) -> None:
    """Refuse numbers that no published network comes near, before timm builds a network from them."""
    given = config.get("model_args")
    args = {**(given if isinstance(given, Mapping) else {}), "num_classes": config.get("num_classes")}
    for name, value in args.items():
        greatest = _GREATEST.get(name, _GREATEST_OTHER)
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int | float) and not -greatest <= number <= greatest:
                raise WeightsError(
                    "config.json does not make sense",
                    got=f"{name} = {value!r:.120}",
                    expected=f"at most {greatest}",
                    fix=f"give {name} as the config.json does that was published with the weights",
                )


@functools.lru_cache(maxsize=64)
def _read(text: str) -> Numbers:
    """Read a configuration from its JSON text. Results are cached: timm takes 0.25 s to build a model."""
    from timm.layers.mlp import Mlp

    from vconv.convert.libraries import timm_models

    config: Config = json.loads(text)
    _refuse_excess(config)
    model: Any = timm_models.describe(config)
    if not len(model.blocks):
        raise WeightsError(
            "config.json does not make sense",
            got="no block",
            expected="at least one",
            fix="give depth in model_args as the published config.json does, or leave it out",
        )
    block: Any = model.blocks[0]
    plain: Any = Mlp
    if not isinstance(block.mlp, plain):
        raise WeightsError(
            "config.json asks for a gated MLP",
            got=str(config.get("architecture")),
            expected="an architecture with a plain MLP",
            fix="use a variant with a plain MLP; gated ones are not supported yet",
        )
    parts = {
        "qkv_bias": getattr(block.attn.qkv, "bias", None),
        "q_bias": getattr(block.attn, "q_bias", None),
        "norm": getattr(model.norm, "weight", None),
        "fc_norm": getattr(model.fc_norm, "weight", None),
        "registers": model.reg_token,
    }
    flags = {name for name, part in parts.items() if part is not None}
    flags |= {ANY_SIZE} if getattr(model, "dynamic_img_size", False) else set()
    flags |= {CLASSIFIER} if model.num_classes else set()
    flags |= {NO_CLS_POSITION} if getattr(model, "no_embed_class", False) else set()
    position, rope = getattr(model, "pos_embed", None), getattr(model, "rope", None)
    act = block.mlp.act
    if type(act).__name__ not in ACTIVATIONS:
        raise WeightsError(
            "config.json asks for an activation that cannot be exported",
            got=f"{type(act).__name__} in the MLP",
            expected="one of " + ", ".join(ACTIVATIONS),
            fix="if the weights were trained with one of these, name it as act_layer in model_args",
        )
    exact = isinstance(act, timm_models.exact_gelus()) and getattr(act, "approximate", "none") == "none"
    return Numbers(
        width=model.embed_dim,
        hidden=block.mlp.fc1.out_features,
        blocks=len(model.blocks),
        heads=block.attn.num_heads,
        channels=model.patch_embed.proj.in_channels,
        patch=model.patch_embed.patch_size[0],
        registers=model.num_prefix_tokens - 1,
        positions=0 if position is None else position.shape[1],
        labels=model.num_classes,
        image=tuple(model.patch_embed.img_size),
        flags=frozenset(flags),
        exact_gelu=exact,
        epsilon=float(block.norm1.eps),
        rope_base=None if rope is None else float(rope.temperature),
        pooling=timm_models.POOLING.get(model.global_pool, model.global_pool),
    )
