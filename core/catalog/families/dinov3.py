"""DINOv3 ViT in transformers and timm, trained on images of the web (LVD-1689M) or of satellites (SAT-493M).

The numbers are those of ``convert_dinov3_vit_to_hf.py`` in transformers; mean and deviation of the satellite
images are those that the authors give for these weights (facebookresearch/dinov3, README, image transforms).
"""

from __future__ import annotations

from dataclasses import replace

from vconv.catalog import literature, published
from vconv.catalog.families.base import (
    EVERYWHERE,
    GATED,
    IMAGENET,
    SMALL_TIMM,
    Family,
    Miniature,
    Size,
    frozen,
    processor,
    square,
    timm_config,
    transformer,
)

_SATELLITE = {"mean": [0.43, 0.411, 0.296], "std": [0.213, 0.156, 0.143]}
"""Mean and standard deviation of the satellite images of SAT-493M."""
_SWIGLU = frozen(use_gated_mlp=True, hidden_act="silu")
_7B = Size(
    "7b16",
    transformer(4096, 40, 32, intermediate_size=8192, query_bias=False, value_bias=False, **_SWIGLU),
    structure=GATED,
)
_LARGE = Size("l16", transformer(1024, 24, 16, intermediate_size=4096))

VIT = Family(
    name="dinov3_vit",
    title="DINOv3 ViT",
    library="transformers",
    short="dinov3-vit{size}",
    repository="facebook/dinov3-vit{size}-pretrain-lvd1689m",
    licence="dinov3-license",
    gated=True,
    works=(literature.DINOV3,),
    trained_on="LVD-1689M",
    config=frozen(
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
    preprocessor=processor("DINOv3ViTImageProcessorFast", square(224), resample=2, normal=IMAGENET),
    miniature=Miniature(transformer(96, 3, 2, intermediate_size=192, image_size=64), side=64),
    sizes=(
        Size("s16", transformer(384, 12, 6, intermediate_size=1536), published.DINOV3_VITS16, EVERYWHERE),
        Size("s16plus", transformer(384, 12, 6, intermediate_size=1536, **_SWIGLU), structure=GATED),
        Size("b16", transformer(768, 12, 12, intermediate_size=3072)),
        _LARGE,
        Size("h16plus", transformer(1280, 32, 20, intermediate_size=5120, **_SWIGLU), structure=GATED),
        _7B,
    ),
)

VIT_SATELLITE = replace(
    VIT,
    title="DINOv3 ViT, satellite images",
    short="dinov3-vit{size}-sat493m",
    repository="facebook/dinov3-vit{size}-pretrain-sat493m",
    trained_on="SAT-493M",
    preprocessor=processor("DINOv3ViTImageProcessorFast", square(224), resample=2, normal=_SATELLITE),
    sizes=(_LARGE, _7B),
)

_TIMM_LARGE = Size("large", frozen(num_features=1024))
_TIMM_7B = Size("7b", frozen(num_features=4096), structure=GATED)

TIMM_VIT = Family(
    name="timm dinov3",
    title="DINOv3 ViT",
    library="timm",
    short="vit_{size}_patch16_dinov3.lvd1689m",
    repository="timm/vit_{size}_patch16_dinov3.lvd1689m",
    licence="dinov3-license",
    works=(literature.DINOV3, literature.VIT, literature.TIMM),
    trained_on="LVD-1689M",
    config=timm_config("avg", side=256, license="dinov3-license"),
    miniature=Miniature(frozen(**SMALL_TIMM, img_size=64), side=64),
    sizes=(
        Size(
            "small",
            frozen(num_features=384),
            published.TIMM_DINOV3,
            (literature.HF_MIRROR, literature.ATOMGIT),
        ),
        Size("small_plus", frozen(num_features=384), structure=GATED),
        Size("base", frozen(num_features=768)),
        _TIMM_LARGE,
        Size("huge_plus", frozen(num_features=1280), structure=GATED),
        _TIMM_7B,
    ),
)

TIMM_VIT_SATELLITE = replace(
    TIMM_VIT,
    title="DINOv3 ViT, satellite images",
    short="vit_{size}_patch16_dinov3.sat493m",
    repository="timm/vit_{size}_patch16_dinov3.sat493m",
    trained_on="SAT-493M",
    config=timm_config("avg", side=256, license="dinov3-license", normal=_SATELLITE),
    sizes=(_TIMM_LARGE, _TIMM_7B),
)
