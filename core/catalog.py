"""The systems that vconv knows, one row each. A new system is one more row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from vconv.errors import UnknownNameError
from vconv.types import Config


@dataclass(frozen=True)
class System:
    """One row of the catalog.

    Args:
        name: the short name.
        hub_id: the repository on the Hugging Face hub.
        library: the library that builds the original.
        config: its published ``config.json``: what is used where the weights bring none.
        preprocessor: its published ``preprocessor_config.json``, used likewise.
        licence: the licence of the weights.
        gated: whether the hub asks for consent before a download.
    """

    name: str
    hub_id: str
    library: str
    config: Config
    preprocessor: Config
    licence: str
    gated: bool = False


def _frozen(**values: Any) -> Mapping[str, Any]:
    return MappingProxyType(values)


_SYSTEMS = (
    System(
        name="dinov3-vits16",
        hub_id="facebook/dinov3-vits16-pretrain-lvd1689m",
        library="transformers",
        licence="dinov3-license",
        gated=True,
        config=_frozen(
            model_type="dinov3_vit",
            architectures=["DINOv3ViTModel"],
            hidden_size=384,
            intermediate_size=1536,
            num_hidden_layers=12,
            num_attention_heads=6,
            num_register_tokens=4,
            num_channels=3,
            patch_size=16,
            image_size=224,
            hidden_act="gelu",
            layer_norm_eps=1e-5,
            layerscale_value=1.0,
            rope_theta=100.0,
            query_bias=True,
            key_bias=False,
            value_bias=True,
            proj_bias=True,
            mlp_bias=True,
            use_gated_mlp=False,
            attention_dropout=0.0,
            drop_path_rate=0.0,
            initializer_range=0.02,
        ),
        preprocessor=_frozen(
            image_processor_type="DINOv3ViTImageProcessorFast",
            do_resize=True,
            size={"height": 224, "width": 224},
            resample=2,
            do_rescale=True,
            rescale_factor=1 / 255,
            do_normalize=True,
            image_mean=[0.485, 0.456, 0.406],
            image_std=[0.229, 0.224, 0.225],
        ),
    ),
    System(
        name="vit-base-patch16-224-in21k",
        hub_id="google/vit-base-patch16-224-in21k",
        library="transformers",
        licence="apache-2.0",
        config=_frozen(
            model_type="vit",
            architectures=["ViTModel"],
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            num_channels=3,
            patch_size=16,
            image_size=224,
            hidden_act="gelu",
            layer_norm_eps=1e-12,
            qkv_bias=True,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            initializer_range=0.02,
        ),
        preprocessor=_frozen(
            image_processor_type="ViTImageProcessor",
            do_resize=True,
            size={"height": 224, "width": 224},
            resample=2,
            do_rescale=True,
            rescale_factor=1 / 255,
            do_normalize=True,
            image_mean=[0.5, 0.5, 0.5],
            image_std=[0.5, 0.5, 0.5],
        ),
    ),
)

SYSTEMS: Mapping[str, System] = MappingProxyType({system.name: system for system in _SYSTEMS})
"""The catalog, by short name."""


def find(name: str) -> System:
    """Look a system up by its short name or its hub id.

    Raises:
        UnknownNameError: there is no such system; the message names the nearest.
    """
    for system in SYSTEMS.values():
        if name in (system.name, system.hub_id):
            return system
    raise UnknownNameError("system", name, SYSTEMS, fix="`vconv list` shows every system")
