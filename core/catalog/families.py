"""The families of systems, each with its table of sizes. A new size is one row here.

A family is one architecture in one library, as its authors published it in several sizes. The family has the
values that all sizes share, and the row of a size has the values that differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from vconv.catalog import literature, published
from vconv.catalog.literature import Mirror, Work
from vconv.catalog.published import PublishedFigures
from vconv.types import Config


def _frozen(**values: Any) -> Mapping[str, Any]:
    return MappingProxyType(values)


@dataclass(frozen=True)
class Size:
    """One size of a family: a row of its table.

    Args:
        name: the name of the size in the names of the system: ``large``, ``s``.
        config: the entries of its ``config.json`` that are added to the family's.
        published: figures that others have published for it.
        mirrors: other places with known copies of its repository.
    """

    name: str
    config: Config
    published: tuple[PublishedFigures, ...] = ()
    mirrors: tuple[Mirror, ...] = (literature.HF_MIRROR,)


@dataclass(frozen=True)
class Miniature:
    """How a family is shrunk to a network that runs fast and has every kind of tensor.

    Args:
        numbers: the values that replace those of the configuration.
        side: the side of the images that the miniature takes: sixteen patches.
    """

    numbers: Config
    side: int


@dataclass(frozen=True)
class Family:
    """A family of systems.

    Args:
        name: the family's name, as in the manifest.
        library: the library that builds the originals.
        short: the short name of a system, with ``{size}``.
        repository: the repository of a system on the Hugging Face hub, with ``{size}``.
        config: the entries that every published ``config.json`` of the family has.
        sizes: the table of sizes.
        miniature: how the family is shrunk.
        licence: the licence of the weights.
        works: the authors' publications about the family.
        trained_on: the data that the published weights were trained on.
        preprocessor: the published ``preprocessor_config.json``; timm's families have none.
        gated: whether the hub asks for consent before a download.
    """

    name: str
    library: str
    short: str
    repository: str
    config: Config
    sizes: tuple[Size, ...]
    miniature: Miniature
    licence: str
    works: tuple[Work, ...]
    trained_on: str
    preprocessor: Config = field(default_factory=dict)
    gated: bool = False

    def config_of(self, size: Size) -> Config:
        """Return the ``config.json`` of a size; in timm's file, the architecture's name contains the size."""
        config = {**self.config, **size.config}
        if "architecture" in config:
            config["architecture"] = config["architecture"].format(size=size.name)
        return MappingProxyType(config)


_IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
"""Mean and standard deviation of ImageNet's pixels, by which timm's and most other processors normalise."""


def _processor(kind: str, size: Config, resample: int, normal: Config, **more: Any) -> Config:
    """Return the ``preprocessor_config.json`` of a processor that resizes, rescales and normalises.

    Args:
        kind: the class in transformers.
        size: the size to resize to.
        resample: PIL's number of the filter.
        normal: ``mean`` and ``std``.
        more: further entries.
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
    """Return the ``config.json`` of a timm encoder without a classifier; the width is added later."""
    return _frozen(
        architecture=architecture,
        num_classes=0,
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


def _transformer(width: int, blocks: int, heads: int, **more: Any) -> Config:
    """Return the entries that differ between sizes in transformers' configurations."""
    return _frozen(hidden_size=width, num_hidden_layers=blocks, num_attention_heads=heads, **more)


_SMALL_TIMM = _frozen(embed_dim=96, depth=3, num_heads=2, mlp_ratio=2)
_EVERYWHERE = (literature.HF_MIRROR, literature.MODELSCOPE, literature.ATOMGIT)

DINOV3 = Family(
    name="dinov3_vit",
    library="transformers",
    short="dinov3-vit{size}16",
    repository="facebook/dinov3-vit{size}16-pretrain-lvd1689m",
    licence="dinov3-license",
    gated=True,
    works=(literature.DINOV3,),
    trained_on="LVD-1689M",
    config=_frozen(
        model_type="dinov3_vit",
        architectures=["DINOv3ViTModel"],
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
    miniature=Miniature(_transformer(96, 3, 2, intermediate_size=192, image_size=64), side=64),
    sizes=(
        Size("s", _transformer(384, 12, 6, intermediate_size=1536), published.DINOV3_VITS16, _EVERYWHERE),
    ),
)

TIMM_DINOV3 = Family(
    name="timm dinov3",
    library="timm",
    short="vit_{size}_patch16_dinov3.lvd1689m",
    repository="timm/vit_{size}_patch16_dinov3.lvd1689m",
    licence="dinov3-license",
    works=(literature.DINOV3, literature.VIT, literature.TIMM),
    trained_on="LVD-1689M",
    config=_timm("vit_{size}_patch16_dinov3", "lvd1689m", "avg", side=256, license="dinov3-license"),
    miniature=Miniature(_frozen(**_SMALL_TIMM, img_size=64), side=64),
    sizes=(
        Size(
            "small",
            _frozen(num_features=384),
            published.TIMM_DINOV3,
            (literature.HF_MIRROR, literature.ATOMGIT),
        ),
    ),
)

DINOV2 = Family(
    name="dinov2",
    library="transformers",
    short="dinov2-{size}",
    repository="facebook/dinov2-{size}",
    licence="apache-2.0",
    works=(literature.DINOV2,),
    trained_on="LVD-142M",
    config=_frozen(
        model_type="dinov2",
        architectures=["Dinov2Model"],
        mlp_ratio=4,
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
    # The position embedding has 25 patches, so that it is resampled to sixteen, as in the real model.
    miniature=Miniature(_transformer(96, 3, 2, mlp_ratio=2, image_size=70), side=56),
    sizes=(Size("large", _transformer(1024, 24, 16), published.DINOV2_LARGE, _EVERYWHERE),),
)

TIMM_DINOV2 = Family(
    name="timm dinov2",
    library="timm",
    short="vit_{size}_patch14_reg4_dinov2.lvd142m",
    repository="timm/vit_{size}_patch14_reg4_dinov2.lvd142m",
    licence="apache-2.0",
    works=(literature.DINOV2, literature.REGISTERS, literature.TIMM),
    trained_on="LVD-142M",
    config=_timm("vit_{size}_patch14_reg4_dinov2", "lvd142m", "token", side=518, license="apache-2.0"),
    miniature=Miniature(_frozen(**_SMALL_TIMM, img_size=56), side=56),
    sizes=(
        Size(
            "small",
            _frozen(num_features=384),
            published.TIMM_DINOV2_REG4,
            (literature.HF_MIRROR, literature.ATOMGIT),
        ),
    ),
)

VIT = Family(
    name="vit",
    library="transformers",
    short="vit-{size}-patch16-224-in21k",
    repository="google/vit-{size}-patch16-224-in21k",
    licence="apache-2.0",
    works=(literature.VIT,),
    trained_on="ImageNet-21k",
    config=_frozen(
        model_type="vit",
        architectures=["ViTModel"],
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
    miniature=Miniature(_transformer(96, 3, 2, intermediate_size=192, image_size=64), side=64),
    sizes=(Size("base", _transformer(768, 12, 12, intermediate_size=3072), published.VIT_BASE),),
)

FAMILIES: tuple[Family, ...] = (DINOV3, TIMM_DINOV3, DINOV2, TIMM_DINOV2, VIT)
"""Every family, in the order in which their systems are listed."""
