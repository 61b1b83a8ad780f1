"""Miniatures: every system in its true architecture, but few and narrow blocks and small images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vconv.catalog.systems import System
from vconv.convert.libraries.readers import find_reader

_TRANSFORMERS = {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 2}
_TIMM = {"embed_dim": 96, "depth": 3, "num_heads": 2, "mlp_ratio": 2}
_NUMBERS: Mapping[str, Mapping[str, Any]] = {
    "dinov3_vit": {**_TRANSFORMERS, "intermediate_size": 192, "image_size": 64},
    "dinov2": {**_TRANSFORMERS, "mlp_ratio": 2, "image_size": 70},
    "vit": {**_TRANSFORMERS, "intermediate_size": 192, "image_size": 64},
    "timm dinov3": {**_TIMM, "img_size": 64},
    "timm dinov2": {**_TIMM, "img_size": 56},
}
"""By family, a network that is quick to run and has every kind of tensor that its full-sized kin has."""
_SIDES = {"dinov3_vit": 64, "dinov2": 56, "vit": 64, "timm dinov3": 64, "timm dinov2": 56}
"""By family, the side of the images that it then takes: sixteen patches. DINOv2's position embedding, in
transformers, has 25, so that it is resampled, as that of the real one is."""


def side_of(system: System) -> int:
    """Return the side of the images that a system's miniature takes."""
    return _SIDES[find_reader(system.config).family]


def miniature(system: System) -> System:
    """Shrink a system: same architecture, few and narrow blocks, small images."""
    numbers, side = _NUMBERS[find_reader(system.config).family], side_of(system)
    square = {"height": side, "width": side}
    if system.library == "timm":
        preprocessing = {**system.config["pretrained_cfg"], "input_size": [3, side, side]}
        config = {"num_features": 96, "model_args": dict(numbers), "pretrained_cfg": preprocessing}
        return replace(system, config={**system.config, **config})
    sizes: dict[str, Any] = {"size": square}
    if system.preprocessor.get("do_center_crop"):
        sizes = {"size": {"shortest_edge": side + 8}, "crop_size": square}
    return replace(system, config={**system.config, **numbers}, preprocessor={**system.preprocessor, **sizes})
