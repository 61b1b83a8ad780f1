"""ViT (Dosovitskiy et al., 2020) in transformers and in timm.

The numbers are those of ``convert_vit_timm_to_pytorch.py`` in transformers. The repositories of weights that
were trained on ImageNet-21k alone have a pooler and no classifier: its weights were zeroed by the authors.
"""

from __future__ import annotations

from dataclasses import replace

from vconv.catalog import literature, published
from vconv.catalog.families.base import (
    HALF,
    IMAGENET_1K,
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
from vconv.types import Config


def _base(patch: int, side: int) -> Config:
    return transformer(768, 12, 12, intermediate_size=3072, patch_size=patch, image_size=side)


def _large(patch: int, side: int) -> Config:
    return transformer(1024, 24, 16, intermediate_size=4096, patch_size=patch, image_size=side)


_SIDE_384 = frozen(size=square(384))

IN21K = Family(
    name="vit",
    title="ViT, ImageNet-21k",
    library="transformers",
    short="vit-{size}-in21k",
    repository="google/vit-{size}-in21k",
    licence="apache-2.0",
    works=(literature.VIT,),
    trained_on="ImageNet-21k",
    config=frozen(
        model_type="vit",
        architectures=["ViTModel"],
        num_channels=3,
        hidden_act="gelu",
        layer_norm_eps=1e-12,
        qkv_bias=True,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.02,
    ),
    preprocessor=processor("ViTImageProcessor", square(224), resample=2, normal=HALF),
    miniature=Miniature(transformer(96, 3, 2, intermediate_size=192, patch_size=16, image_size=64), side=64),
    sizes=(
        Size("base-patch16-224", _base(16, 224), published.VIT_BASE),
        Size("base-patch32-224", _base(32, 224)),
        Size("large-patch16-224", _large(16, 224)),
        Size("large-patch32-224", _large(32, 224)),
        Size(
            "huge-patch14-224",
            transformer(1280, 32, 16, intermediate_size=5120, patch_size=14, image_size=224),
        ),
    ),
)

IN1K = replace(
    IN21K,
    title="ViT, classifiers of ImageNet-1k",
    short="vit-{size}",
    repository="google/vit-{size}",
    trained_on="ImageNet-21k and ImageNet-1k",
    config=frozen(**{**IN21K.config, "architectures": ["ViTForImageClassification"]}, num_labels=1000),
    classes=IMAGENET_1K,
    structure="classifier",
    sizes=(
        Size("base-patch16-224", _base(16, 224)),
        Size("base-patch16-384", _base(16, 384), preprocessor=_SIDE_384),
        Size("base-patch32-384", _base(32, 384), preprocessor=_SIDE_384),
        Size("large-patch16-224", _large(16, 224)),
        Size("large-patch16-384", _large(16, 384), preprocessor=_SIDE_384),
        Size("large-patch32-384", _large(32, 384), preprocessor=_SIDE_384),
    ),
)

_B, _L, _H = (frozen(num_features=width) for width in (768, 1024, 1280))

TIMM_IN21K = Family(
    name="timm vit",
    title="ViT, ImageNet-21k",
    library="timm",
    short="vit_{size}.orig_in21k",
    repository="timm/vit_{size}.orig_in21k",
    licence="apache-2.0",
    works=(literature.VIT, literature.TIMM),
    trained_on="ImageNet-21k",
    config=timm_config("token", side=224, license="apache-2.0", normal=HALF, crop=0.9),
    miniature=Miniature(frozen(**SMALL_TIMM, patch_size=16, img_size=64), side=64),
    sizes=(
        Size("base_patch16_224", _B),
        Size("base_patch32_224", _B),
        Size("large_patch16_224", _L),
        Size("large_patch32_224", _L),
        Size("huge_patch14_224", _H),
    ),
)

_TIMM_384 = frozen(pretrained_cfg=frozen(input_size=[3, 384, 384], crop_pct=1.0))

TIMM_IN1K = replace(
    TIMM_IN21K,
    title="ViT, classifiers of ImageNet-1k",
    short="vit_{size}_in21k_ft_in1k",
    repository="timm/vit_{size}_in21k_ft_in1k",
    trained_on="ImageNet-21k and ImageNet-1k",
    config=timm_config("token", side=224, license="apache-2.0", normal=HALF, classes=1000, crop=0.9),
    classes=IMAGENET_1K,
    structure="classifier",
    sizes=(
        Size("base_patch16_224.orig", _B),
        Size("base_patch16_384.orig", frozen(**_B, **_TIMM_384)),
        Size("base_patch32_384.augreg", frozen(**_B, **_TIMM_384)),
        Size("large_patch16_224.augreg", _L),
        Size("large_patch16_384.augreg", frozen(**_L, **_TIMM_384)),
        Size("large_patch32_384.orig", frozen(**_L, **_TIMM_384)),
    ),
)
