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

from vconv.convert.architectures.base import (
    ANY_SIZE,
    CLASSIFIER,
    GATED_MLP,
    MLP_RATIO,
    NO_CLS_POSITION,
    PLAIN_MLP,
    Numbers,
    Stage,
)
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
    from vconv.convert.libraries import timm_described, timm_models

    config: Config = json.loads(text)
    _refuse_excess(config)
    model: Any = timm_described.describe(config)
    if not len(model.blocks):
        raise WeightsError(
            "config.json does not make sense",
            got="no block",
            expected="at least one",
            fix="give depth in model_args as the published config.json does, or leave it out",
        )
    block: Any = model.blocks[0]
    mlp, hidden = _mlp(block.mlp)
    parts = {
        "qkv_bias": getattr(block.attn.qkv, "bias", None),
        "q_bias": getattr(block.attn, "q_bias", None),
        "norm": getattr(model.norm, "weight", None),
        "fc_norm": getattr(model.fc_norm, "weight", None),
        "registers": model.reg_token,
    }
    flags = {name for name, part in parts.items() if part is not None} | {mlp}
    flags |= {ANY_SIZE} if getattr(model, "dynamic_img_size", False) else set()
    flags |= {CLASSIFIER} if model.num_classes else set()
    flags |= {NO_CLS_POSITION} if getattr(model, "no_embed_class", False) else set()
    position, rope = getattr(model, "pos_embed", None), getattr(model, "rope", None)
    act = _activation(block.mlp)
    return Numbers(
        width=model.embed_dim,
        hidden=hidden,
        blocks=len(model.blocks),
        heads=block.attn.num_heads,
        channels=model.patch_embed.proj.in_channels,
        patch=model.patch_embed.patch_size[0],
        registers=model.num_prefix_tokens - 1,
        positions=0 if position is None else position.shape[1],
        labels=model.num_classes,
        image=tuple(model.patch_embed.img_size),
        flags=frozenset(flags),
        exact_gelu=_is_exact(act),
        epsilon=float(block.norm1.eps),
        rope_base=None if rope is None else float(rope.temperature),
        pooling=timm_models.POOLING.get(model.global_pool, model.global_pool),
    )


def feature_maps(config: Config) -> tuple[str, ...]:
    """Return the names of the feature maps that a configuration with ``features_only`` asks for.

    Raises:
        WeightsError: timm cannot build the model, or its levels are not in order.
    """
    return _feature_maps(json.dumps(dict(config), sort_keys=True))


@functools.lru_cache(maxsize=64)
def _feature_maps(text: str) -> tuple[str, ...]:
    from vconv.convert.libraries import timm_described, timm_features

    return timm_features.names_of(timm_described.describe(json.loads(text)))


def read_convnext(config: Config) -> Numbers:
    """Read a configuration of a ConvNeXt.

    Raises:
        WeightsError: timm cannot build the model, or it uses an option that vconv does not support.
    """
    return _read_convnext(json.dumps(dict(config), sort_keys=True))


@functools.lru_cache(maxsize=64)
def _read_convnext(text: str) -> Numbers:
    from vconv.convert.libraries import timm_described

    config: Config = json.loads(text)
    _refuse_excess(config)
    model: Any = timm_described.describe(config)
    stages = tuple(Stage(stage.blocks[0].conv_dw.out_channels, len(stage.blocks)) for stage in model.stages)
    block = model.stages[0].blocks[0]
    act = _activation(block.mlp)
    described = {
        "a stem of patches": len(model.stem) == 2 and model.stem[0].kernel_size == (4, 4),
        "MLPs of linear layers": hasattr(block.mlp.fc1, "in_features") and not block.use_conv_mlp,
        "four hidden channels for each": block.mlp.fc1.weight.shape[0] == MLP_RATIO * stages[0].width,
        "no response norm": not hasattr(block.mlp, "grn"),
        "depthwise convolutions of 7x7": block.conv_dw.kernel_size == (7, 7),
        "LayerScale": block.gamma is not None,
        "a norm after the pooling": getattr(getattr(model.head, "norm", None), "weight", None) is not None,
        "pooling by the mean": model.head.global_pool.pool_type == "avg",
        "no layer before the classifier": not getattr(model.head, "hidden_size", None),
        "a stride of 32": all(stage.downsample[1].stride == (2, 2) for stage in model.stages[1:]),
    }
    missing = [name for name, there in described.items() if not there]
    if missing:
        raise WeightsError(
            "config.json asks for a ConvNeXt of another form",
            got=f"model_args = {config.get('model_args')!r:.120}",
            expected=", ".join(missing),
            fix="leave these options of timm out of model_args",
        )
    return Numbers(
        width=stages[-1].width,
        hidden=MLP_RATIO * stages[-1].width,
        blocks=sum(stage.blocks for stage in stages),
        heads=1,
        channels=model.stem[0].in_channels,
        patch=2 * 2 ** len(stages),
        registers=0,
        positions=0,
        labels=model.num_classes,
        image=tuple(timm_described.preprocessing(config)["input_size"][1:]),
        flags=frozenset({ANY_SIZE} | ({CLASSIFIER} if model.num_classes else set())),
        exact_gelu=_is_exact(act),
        epsilon=float(block.norm.eps),
        rope_base=None,
        pooling="cls",
        stages=stages,
    )


def _activation(mlp: Any) -> Any:
    """Return the activation of an MLP.

    Raises:
        WeightsError: it cannot be exported.
    """
    act = mlp.act
    if type(act).__name__ not in ACTIVATIONS:
        raise WeightsError(
            "config.json asks for an activation that cannot be exported",
            got=f"{type(act).__name__} in the MLP",
            expected="one of " + ", ".join(ACTIVATIONS),
            fix="if the weights were trained with one of these, name it as act_layer in model_args",
        )
    return act


def _is_exact(act: Any) -> bool:
    from vconv.convert.libraries import timm_models

    return isinstance(act, timm_models.exact_gelus()) and getattr(act, "approximate", "none") == "none"


def _mlp(module: Any) -> tuple[str, int]:
    """Return the flag of an MLP, and the number of its hidden channels.

    Raises:
        WeightsError: vconv has no rules for its class.
    """
    from timm.layers.mlp import GluMlp, Mlp, SwiGLU

    kinds: tuple[Any, ...] = (Mlp, SwiGLU, GluMlp)
    plain, separate, packed = (isinstance(module, kind) for kind in kinds)
    if not (plain or separate or (packed and not module.gate_last)):
        raise WeightsError(
            "config.json asks for an MLP that vconv does not know",
            got=f"{type(module).__name__}",
            expected="a plain MLP, or SwiGLU with the gate first",
            fix="use an architecture of a listed system",
        )
    if plain:
        return PLAIN_MLP, module.fc1.out_features
    return GATED_MLP, module.fc1_g.out_features if separate else module.fc1.out_features // 2
