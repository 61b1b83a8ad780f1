"""DINOv3 ConvNeXt in transformers and timm: ConvNeXts into which the authors distilled DINOv3 ViT-7B.

The numbers are those of ``convert_dinov3_convnext_to_hf.py`` in transformers.
"""

from __future__ import annotations

from vconv.catalog import literature
from vconv.catalog.families import dinov3
from vconv.catalog.families.base import Family, Miniature, Size, frozen, timm_config
from vconv.types import Config


def _stages(widths: list[int], blocks: list[int]) -> Config:
    return frozen(hidden_sizes=widths, depths=blocks)


DINOV3 = Family(
    name="dinov3_convnext",
    title="DINOv3 ConvNeXt",
    library="transformers",
    short="dinov3-convnext-{size}",
    repository="facebook/dinov3-convnext-{size}-pretrain-lvd1689m",
    licence="dinov3-license",
    gated=True,
    works=(literature.DINOV3, literature.CONVNEXT),
    trained_on="LVD-1689M",
    config=frozen(
        model_type="dinov3_convnext",
        architectures=["DINOv3ConvNextModel"],
        num_channels=3,
        image_size=224,
        hidden_act="gelu",
        layer_norm_eps=1e-6,
        layer_scale_init_value=1e-6,
        drop_path_rate=0.0,
        initializer_range=0.02,
    ),
    preprocessor=dinov3.VIT.preprocessor,
    miniature=Miniature(frozen(**_stages([16, 24, 48, 96], [1, 1, 2, 1]), image_size=128), side=128),
    sizes=(
        Size("tiny", _stages([96, 192, 384, 768], [3, 3, 9, 3])),
        Size("small", _stages([96, 192, 384, 768], [3, 3, 27, 3])),
        Size("base", _stages([128, 256, 512, 1024], [3, 3, 27, 3])),
        Size("large", _stages([192, 384, 768, 1536], [3, 3, 27, 3])),
    ),
)

_TIMM = timm_config("avg", side=224, license="dinov3-license")
TIMM = Family(
    name="timm convnext",
    title="DINOv3 ConvNeXt",
    library="timm",
    short="convnext_{size}.dinov3_lvd1689m",
    repository="timm/convnext_{size}.dinov3_lvd1689m",
    licence="dinov3-license",
    works=(literature.DINOV3, literature.CONVNEXT, literature.TIMM),
    trained_on="LVD-1689M",
    config=frozen(
        **{
            **_TIMM,
            "pretrained_cfg": {
                **_TIMM["pretrained_cfg"],
                **{"fixed_input_size": False, "pool_size": [7, 7]},
                **{"first_conv": "stem.0", "classifier": "head.fc"},
            },
        }
    ),
    miniature=Miniature(frozen(dims=[16, 24, 48, 96], depths=[1, 1, 2, 1]), side=128),
    sizes=(
        Size("tiny", frozen(num_features=768)),
        Size("small", frozen(num_features=768)),
        Size("base", frozen(num_features=1024)),
        Size("large", frozen(num_features=1536)),
    ),
)
