"""The systems that vconv knows, one row each. A new system is one more row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from vconv.catalog import literature, published
from vconv.catalog.literature import Mirror, Work
from vconv.catalog.published import PublishedFigures
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
        licence: the licence of the weights.
        preprocessor: its published ``preprocessor_config.json``, used likewise; timm's systems have none.
        gated: whether the hub asks for consent before a download.
        published: figures that others have published for it.
        works: what its authors published of it.
        trained_on: the data that the published weights were trained on.
        mirrors: where copies of its repository are known to be, beside the hub.
    """

    name: str
    hub_id: str
    library: str
    config: Config
    licence: str
    preprocessor: Config = field(default_factory=dict)
    gated: bool = False
    published: tuple[PublishedFigures, ...] = ()
    works: tuple[Work, ...] = ()
    trained_on: str = ""
    mirrors: tuple[Mirror, ...] = ()

    @property
    def input(self) -> tuple[int, int]:
        """(height, width) of the images that it takes, as it was published."""
        if self.library == "timm":
            _, height, width = self.config["pretrained_cfg"]["input_size"]
        else:
            size = self.preprocessor.get("crop_size", self.preprocessor["size"])
            height, width = size["height"], size["width"]
        return height, width


def _frozen(**values: Any) -> Mapping[str, Any]:
    return MappingProxyType(values)


_IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
"""Mean and standard deviation of ImageNet's pixels, which timm's and most other processors take off."""


def _processor(kind: str, size: Config, resample: int, normal: Config, **more: Any) -> Config:
    """Return the ``preprocessor_config.json`` of a processor that resizes, rescales and normalises.

    Args:
        kind: transformers' class.
        size: what it resizes to.
        resample: PIL's number of the filter.
        normal: ``mean`` and ``std``.
        more: what else it does.
    """
    return _frozen(
        image_processor_type=kind,
        do_resize=True,
        size=size,
        resample=resample,
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=normal["mean"],
        image_std=normal["std"],
        **more,
    )


def _timm(architecture: str, tag: str, pool: str, side: int, license: str) -> Config:
    """Return the ``config.json`` of a timm encoder without a classifier, 384 channels wide."""
    return _frozen(
        architecture=architecture,
        num_classes=0,
        num_features=384,
        global_pool=pool,
        pretrained_cfg=dict(
            tag=tag,
            custom_load=False,
            input_size=[3, side, side],
            fixed_input_size=True,
            interpolation="bicubic",
            crop_pct=1.0,
            crop_mode="center",
            **_IMAGENET,
            num_classes=0,
            pool_size=None,
            first_conv="patch_embed.proj",
            classifier="head",
            license=license,
        ),
    )


_SYSTEMS = (
    System(
        name="dinov3-vits16",
        published=published.DINOV3_VITS16,
        works=(literature.DINOV3,),
        trained_on="LVD-1689M",
        mirrors=(literature.HF_MIRROR, literature.MODELSCOPE, literature.ATOMGIT),
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
        preprocessor=_processor(
            "DINOv3ViTImageProcessorFast", {"height": 224, "width": 224}, resample=2, normal=_IMAGENET
        ),
    ),
    System(
        name="vit_small_patch16_dinov3.lvd1689m",
        published=published.TIMM_DINOV3,
        works=(literature.DINOV3, literature.VIT, literature.TIMM),
        trained_on="LVD-1689M",
        mirrors=(literature.HF_MIRROR, literature.ATOMGIT),
        hub_id="timm/vit_small_patch16_dinov3.lvd1689m",
        library="timm",
        licence="dinov3-license",
        config=_timm("vit_small_patch16_dinov3", "lvd1689m", "avg", side=256, license="dinov3-license"),
    ),
    System(
        name="dinov2-large",
        published=published.DINOV2_LARGE,
        works=(literature.DINOV2,),
        trained_on="LVD-142M",
        mirrors=(literature.HF_MIRROR, literature.MODELSCOPE, literature.ATOMGIT),
        hub_id="facebook/dinov2-large",
        library="transformers",
        licence="apache-2.0",
        config=_frozen(
            model_type="dinov2",
            architectures=["Dinov2Model"],
            hidden_size=1024,
            mlp_ratio=4,
            num_hidden_layers=24,
            num_attention_heads=16,
            num_channels=3,
            patch_size=14,
            image_size=518,
            hidden_act="gelu",
            layer_norm_eps=1e-6,
            layerscale_value=1.0,
            qkv_bias=True,
            use_swiglu_ffn=False,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            drop_path_rate=0.0,
            initializer_range=0.02,
        ),
        preprocessor=_processor(
            "BitImageProcessor",
            {"shortest_edge": 256},
            resample=3,
            normal=_IMAGENET,
            do_convert_rgb=True,
            do_center_crop=True,
            crop_size={"height": 224, "width": 224},
        ),
    ),
    System(
        name="vit_small_patch14_reg4_dinov2.lvd142m",
        published=published.TIMM_DINOV2_REG4,
        works=(literature.DINOV2, literature.REGISTERS, literature.TIMM),
        trained_on="LVD-142M",
        mirrors=(literature.HF_MIRROR, literature.ATOMGIT),
        hub_id="timm/vit_small_patch14_reg4_dinov2.lvd142m",
        library="timm",
        licence="apache-2.0",
        config=_timm("vit_small_patch14_reg4_dinov2", "lvd142m", "token", side=518, license="apache-2.0"),
    ),
    System(
        name="vit-base-patch16-224-in21k",
        published=published.VIT_BASE,
        works=(literature.VIT,),
        trained_on="ImageNet-21k",
        mirrors=(literature.HF_MIRROR,),
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
        preprocessor=_processor(
            "ViTImageProcessor",
            {"height": 224, "width": 224},
            resample=2,
            normal={"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
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
