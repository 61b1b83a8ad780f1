"""DINOv2 in transformers and in timm, with or without registers.

The numbers are those of ``convert_dinov2_to_hf.py`` in transformers.
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

# The activation of a gated MLP is SiLU, whatever hidden_act says.
_GIANT = Size("giant", transformer(1536, 40, 24, use_swiglu_ffn=True), structure=GATED)
_PLAIN = (
    Size("small", transformer(384, 12, 6)),
    Size("base", transformer(768, 12, 12)),
    Size("large", transformer(1024, 24, 16)),
)

DINOV2 = Family(
    name="dinov2",
    title="DINOv2",
    library="transformers",
    short="dinov2-{size}",
    repository="facebook/dinov2-{size}",
    licence="apache-2.0",
    works=(literature.DINOV2,),
    trained_on="LVD-142M",
    config=frozen(
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
    preprocessor=processor(
        "BitImageProcessor",
        {"shortest_edge": 256},
        resample=3,
        normal=IMAGENET,
        do_convert_rgb=True,
        do_center_crop=True,
        crop_size=square(224),
    ),
    # The position embedding has 25 patches, so that it is resampled to sixteen, as in the real model.
    miniature=Miniature(transformer(96, 3, 2, mlp_ratio=2, image_size=70), side=56),
    sizes=(
        *_PLAIN[:2],
        Size("large", transformer(1024, 24, 16), published.DINOV2_LARGE, EVERYWHERE),
        _GIANT,
    ),
)

REGISTERS = replace(
    DINOV2,
    name="dinov2_with_registers",
    title="DINOv2 with registers",
    short="dinov2-with-registers-{size}",
    repository="facebook/dinov2-with-registers-{size}",
    works=(literature.DINOV2, literature.REGISTERS),
    config=frozen(
        **{
            **DINOV2.config,
            "model_type": "dinov2_with_registers",
            "architectures": ["Dinov2WithRegistersModel"],
            "num_register_tokens": 4,
        }
    ),
    sizes=(*_PLAIN, _GIANT),
)

_TIMM_SMALL = Size("small", frozen(num_features=384))
_TIMM_LARGER = (
    Size("base", frozen(num_features=768)),
    Size("large", frozen(num_features=1024)),
    Size("giant", frozen(num_features=1536), structure=GATED),
)

TIMM_REGISTERS = Family(
    name="timm dinov2",
    title="DINOv2 with registers",
    library="timm",
    short="vit_{size}_patch14_reg4_dinov2.lvd142m",
    repository="timm/vit_{size}_patch14_reg4_dinov2.lvd142m",
    licence="apache-2.0",
    works=(literature.DINOV2, literature.REGISTERS, literature.TIMM),
    trained_on="LVD-142M",
    config=timm_config("token", side=518, license="apache-2.0"),
    miniature=Miniature(frozen(**SMALL_TIMM, img_size=56), side=56),
    sizes=(
        replace(
            _TIMM_SMALL,
            published=published.TIMM_DINOV2_REG4,
            mirrors=(literature.HF_MIRROR, literature.ATOMGIT),
        ),
        *_TIMM_LARGER,
    ),
)

TIMM = replace(
    TIMM_REGISTERS,
    title="DINOv2",
    short="vit_{size}_patch14_dinov2.lvd142m",
    repository="timm/vit_{size}_patch14_dinov2.lvd142m",
    works=(literature.DINOV2, literature.TIMM),
    structure="without registers",
    sizes=(_TIMM_SMALL, *_TIMM_LARGER),
)
