"""Reading the ``config.json`` of a vision transformer in transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

from vconv.convert.architectures.base import (
    ANY_SIZE,
    BACKBONE,
    CLASSIFIER,
    FINAL_NORM,
    GATED_MLP,
    MLP_RATIO,
    NO_CLS_POSITION,
    ON_REQUEST,
    PLAIN_MLP,
    Numbers,
    Stage,
)
from vconv.convert.libraries.transformers_options import EXACT_GELU, refuse_options
from vconv.errors import WeightsError
from vconv.types import Config

NUM_LABELS = 2
"""The number of labels that transformers assumes if the configuration does not give one."""
_GREATEST: Mapping[str, int] = {
    "num_hidden_layers": 1_000,
    "num_attention_heads": 1_024,
    "hidden_size": 65_536,
    "intermediate_size": 262_144,
    "mlp_ratio": 1_024,
    "num_channels": 1_024,
    "num_register_tokens": 4_096,
    "hidden_sizes": 65_536,
    "depths": 1_000,
    "patch_size": 1_024,
    "image_size": 8_192,
    "num_labels": 1_000_000,
}
_GREATEST_OTHER = 2**31
"""The greatest numbers that a configuration may hold: no published network comes near them, and a network is
built from them before any weight is read."""

_DINOV3: Mapping[str, Any] = {
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "rope_theta": 100.0,
    "query_bias": True,
    "key_bias": False,
    "value_bias": True,
    "proj_bias": True,
    "mlp_bias": True,
    "use_gated_mlp": False,
    "num_register_tokens": 0,
}
_DINOV2: Mapping[str, Any] = {
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "mlp_ratio": 4,
    "qkv_bias": True,
    "use_swiglu_ffn": False,
    "use_mask_token": True,
}
_DINOV2_WITH_REGISTERS: Mapping[str, Any] = {**_DINOV2, "num_register_tokens": 4}
_CONVNEXT: Mapping[str, Any] = {
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "num_channels": 3,
    "image_size": 224,
    "hidden_sizes": [96, 192, 384, 768],
    "depths": [3, 3, 9, 3],
}
_VIT: Mapping[str, Any] = {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "qkv_bias": True}
"""The defaults of transformers for values that a configuration does not give."""


def names(family: str) -> Callable[[Config], bool]:
    """Return a function that checks whether a configuration's ``model_type`` is this family."""
    return lambda config: config.get("model_type") == family


def whole(config: Config, name: str, least: int = 1) -> int:
    """Return a whole number from a configuration.

    Raises:
        WeightsError: the number is missing or invalid.
    """
    number = config.get(name)
    if _is_whole(number, name, least):
        return number
    raise _senseless(config, name, f"a whole number from {least} to {_greatest(name)}")


def wholes(config: Config, name: str) -> list[int]:
    """Return a list of whole numbers from a configuration.

    Raises:
        WeightsError: it is missing or invalid.
    """
    given = config.get(name)
    if isinstance(given, list | tuple) and given and all(_is_whole(number, name) for number in given):
        return list(given)
    raise _senseless(config, name, f"a list of whole numbers from 1 to {_greatest(name)}")


def sides(config: Config, name: str) -> tuple[int, int]:
    """Return (height, width) from a configuration, which may give one whole number or two.

    Raises:
        WeightsError: the value is missing or invalid.
    """
    given = config.get(name)
    pair = given if isinstance(given, list | tuple) else (given, given)
    if len(pair) == 2 and all(_is_whole(side, name) for side in pair):
        return pair[0], pair[1]
    raise _senseless(config, name, f"one whole number from 1 to {_greatest(name)}, or two: height and width")


def real(config: Config, name: str) -> float:
    """Return a real number above 0 from a configuration.

    Raises:
        WeightsError: the number is missing or invalid.
    """
    number = config.get(name)
    if isinstance(number, int | float) and not isinstance(number, bool) and 0 < number <= _greatest(name):
        return float(number)
    raise _senseless(config, name, f"a number above 0, at most {_greatest(name)}")


def _greatest(name: str) -> int:
    return _GREATEST.get(name, _GREATEST_OTHER)


def _is_whole(number: Any, name: str, least: int = 1) -> TypeGuard[int]:
    return isinstance(number, int) and not isinstance(number, bool) and least <= number <= _greatest(name)


def _labels(config: Config) -> int:
    named = config.get("id2label")
    if named is not None and not isinstance(named, Mapping):
        raise _senseless(config, "id2label", "an object: the name of each class by its number")
    return len(named or ()) or whole(config, "num_labels", least=0)


def _senseless(config: Config, name: str, expected: str) -> WeightsError:
    missing = name not in config
    return WeightsError(
        "config.json is incomplete" if missing else "config.json does not make sense",
        got=f"no {name}" if missing else f"{name} = {config[name]!r:.120}",
        expected=f"{name} in a {config.get('model_type')} configuration" if missing else expected,
        fix=f"give {name} as the config.json does that was published with the weights",
    )


def read(
    config: Config,
    defaults: Mapping[str, Any],
    *,
    hidden: Callable[[Config], int],
    gated: str = "",
    silu: bool = False,
    pooling: str = "cls",
    learned_positions: bool = True,
    any_size: bool = False,
    any_shape: bool = False,
    on_request: bool = False,
) -> Numbers:
    """Read a configuration.

    Args:
        config: a ``config.json``.
        defaults: the defaults of transformers for values that the configuration does not give.
        hidden: returns the number of channels inside an MLP from the configuration.
        gated: the flag that asks for a gated MLP; empty if the family has no such flag.
        silu: whether the activation of a gated MLP is SiLU, whatever the configuration says.
        pooling: how ``pooled`` is computed.
        learned_positions: whether there is a learned position embedding for each token.
        any_size: whether the network takes images of any size.
        any_shape: whether ``image_size`` need not be square.
        on_request: whether transformers resamples a square position embedding if it is asked to.

    Raises:
        WeightsError: the configuration lacks a number, or asks for an option that vconv does not support.
    """
    config = {"num_register_tokens": 0, "num_labels": NUM_LABELS, **defaults, **config}
    refuse_options(config)
    gates = bool(gated and config.get(gated))
    patch, (height, width_of_image) = _patch(config), _image(config, any_shape)
    width, heads = whole(config, "hidden_size"), whole(config, "num_attention_heads")
    if width % heads:
        raise WeightsError(
            "config.json does not make sense",
            got=f"hidden_size = {width} for num_attention_heads = {heads}",
            expected="a hidden size that is a multiple of the number of heads",
            fix="correct the number that differs from the published config.json",
        )
    flags = {name for name, value in config.items() if value is True}
    flags -= {ANY_SIZE, ON_REQUEST, BACKBONE, CLASSIFIER, NO_CLS_POSITION, GATED_MLP, PLAIN_MLP}
    flags.add(GATED_MLP if gates else PLAIN_MLP)
    flags |= {ANY_SIZE} if any_size else {ON_REQUEST} if on_request and height == width_of_image else set()
    return Numbers(
        width=width,
        hidden=hidden(config),
        blocks=whole(config, "num_hidden_layers"),
        heads=heads,
        channels=whole(config, "num_channels"),
        patch=patch,
        registers=whole(config, "num_register_tokens", least=0),
        positions=1 + (height // patch) * (width_of_image // patch) if learned_positions else 0,
        labels=_labels(config),
        image=(height, width_of_image),
        flags=frozenset(flags),
        exact_gelu=config["hidden_act"] in EXACT_GELU and not (gates and silu),
        epsilon=real(config, "layer_norm_eps"),
        rope_base=None if config.get("rope_theta") is None else real(config, "rope_theta"),
        pooling=pooling,
    )


def _patch(config: Config) -> int:
    height, width = sides(config, "patch_size")
    if height != width:
        raise WeightsError(
            "config.json asks for patches that are not square",
            got=f"patch_size = {config['patch_size']!r}",
            expected="one number, or the same twice",
            fix="use a network with square patches; others are not supported",
        )
    return height


def _image(config: Config, any_shape: bool) -> tuple[int, int]:
    height, width = sides(config, "image_size")
    if height != width and not any_shape:
        raise WeightsError(
            "config.json asks for an image_size that is not square",
            got=f"image_size = {config['image_size']!r}",
            expected="one number, or the same twice: the position embedding is resampled from a square",
            fix="set image_size to the size of the position embedding, and the size of images in "
            "preprocessor_config.json",
        )
    return height, width


def _intermediate(config: Config) -> int:
    return whole(config, "intermediate_size")


def _ratio(config: Config) -> int:
    hidden = int(whole(config, "hidden_size") * real(config, "mlp_ratio"))
    # A gated MLP has two thirds of the channels, rounded up to a multiple of eight.
    return (int(hidden * 2 / 3) + 7) // 8 * 8 if config.get("use_swiglu_ffn") else hidden


def dinov3_vit(config: Config) -> Numbers:
    """Read the configuration of a DINOv3 ViT."""
    return read(
        config,
        _DINOV3,
        hidden=_intermediate,
        gated="use_gated_mlp",
        learned_positions=False,
        any_size=True,
        any_shape=True,
    )


def dinov3_convnext(config: Config) -> Numbers:
    """Read the configuration of a DINOv3 ConvNeXt."""
    config = {**_CONVNEXT, **config}
    refuse_options(config)
    widths, depths = wholes(config, "hidden_sizes"), wholes(config, "depths")
    if len(widths) != len(depths):
        raise _senseless(config, "depths", f"{len(widths)} numbers, as in hidden_sizes")
    stages = tuple(map(Stage, widths, depths))
    return Numbers(
        width=widths[-1],
        hidden=MLP_RATIO * widths[-1],
        blocks=sum(depths),
        heads=1,
        channels=whole(config, "num_channels"),
        patch=2 * 2 ** len(stages),
        registers=0,
        positions=0,
        labels=0,
        image=_image(config, any_shape=True),
        flags=frozenset({ANY_SIZE, FINAL_NORM}),
        exact_gelu=config["hidden_act"] in EXACT_GELU,
        epsilon=real(config, "layer_norm_eps"),
        rope_base=None,
        pooling="cls",
        stages=stages,
    )


def dinov2(config: Config) -> Numbers:
    """Read the configuration of a DINOv2 without registers."""
    return read(config, _DINOV2, hidden=_ratio, gated="use_swiglu_ffn", silu=True, any_size=True)


def dinov2_with_registers(config: Config) -> Numbers:
    """Read the configuration of a DINOv2 with registers."""
    return read(
        config, _DINOV2_WITH_REGISTERS, hidden=_ratio, gated="use_swiglu_ffn", silu=True, any_size=True
    )


def vit(config: Config) -> Numbers:
    """Read the configuration of a ViT."""
    return read(config, _VIT, hidden=_intermediate, pooling="pooler", any_shape=True, on_request=True)
