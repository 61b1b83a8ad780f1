"""Reading a timm ``config.json``.

The file names an architecture and the arguments that differ from its defaults (``model_args``). The numbers
themselves are in timm's code. So timm builds the model without weights, and vconv reads the numbers from the
model.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from typing import Any

from vconv.convert.architectures.base import ANY_SIZE, CLASSIFIER, Numbers
from vconv.errors import WeightsError
from vconv.types import Config


def names(pattern: str) -> Callable[[Config], bool]:
    """Return a function that checks whether a configuration's ``architecture`` matches the pattern."""
    return lambda config: bool(re.fullmatch(pattern, str(config.get("architecture", ""))))


def read(config: Config) -> Numbers:
    """Read a configuration.

    Raises:
        WeightsError: timm cannot build the model, or it uses an option that vconv does not support.
    """
    return _read(json.dumps(dict(config), sort_keys=True))


@functools.lru_cache(maxsize=64)
def _read(text: str) -> Numbers:
    """Read a configuration from its JSON text. Results are cached: timm takes 0.25 s to build a model."""
    from timm.layers.mlp import Mlp

    from vconv.convert.libraries import timm_models

    config: Config = json.loads(text)
    model: Any = timm_models.describe(config)
    if not len(model.blocks):
        raise WeightsError(
            "config.json does not make sense",
            got="no block",
            expected="at least one",
            fix="use the config.json that was published with the weights",
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
    position, rope = getattr(model, "pos_embed", None), getattr(model, "rope", None)
    act = block.mlp.act
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
