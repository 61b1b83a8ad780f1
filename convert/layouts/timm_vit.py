"""DINOv3 (``Eva``) and DINOv2 (``VisionTransformer``) in timm."""

from __future__ import annotations

from vconv.convert.layouts import timm_config
from vconv.convert.layouts.base import Layout, Slot, linear, norm, patch_embedding

_BLOCK = "blocks.{i}"
_MLP = (
    *linear(f"{_BLOCK}.mlp.fc1", "fc1", "fc1_bias", ("hidden", "width")),
    *linear(f"{_BLOCK}.mlp.fc2", "fc2", "fc2_bias", ("width", "hidden")),
)
_ENDS = (
    *norm("norm", "norm"),
    *norm("fc_norm", "fc_norm"),
    *linear("head", "head", "head_bias", ("labels", "width"), head="classifier"),
)

DINOV3 = Layout(
    family="timm dinov3",
    library="timm",
    describes=timm_config.names(r"vit_\w+_dinov3"),
    numbers=timm_config.read,
    pooled_with=("", "classifier"),
    slots=(
        Slot("cls_token", "token", (1, 1, "width")),
        Slot("reg_token", "token", (1, "registers", "width")),
        *patch_embedding("patch_embed.proj"),
        *norm(f"{_BLOCK}.norm1"),
        Slot(f"{_BLOCK}.attn.qkv.weight", "qkv", ("triple_width", "width")),
        *linear(f"{_BLOCK}.attn.proj", "proj", "proj_bias", ("width", "width")),
        Slot(f"{_BLOCK}.gamma_1", "layer_scale", ("width",)),
        *norm(f"{_BLOCK}.norm2"),
        *_MLP,
        Slot(f"{_BLOCK}.gamma_2", "layer_scale", ("width",)),
        *_ENDS,
    ),
)

DINOV2 = Layout(
    family="timm dinov2",
    library="timm",
    describes=timm_config.names(r"vit_\w+_(reg4_)?dinov2"),
    numbers=timm_config.read,
    pooled_with=("", "classifier"),
    biases={"attn.qkv.bias": "qkv_bias"},
    slots=(
        Slot("cls_token", "token", (1, 1, "width")),
        Slot("reg_token", "token", (1, "registers", "width"), "registers"),
        Slot("pos_embed", "position", (1, "positions", "width")),
        *patch_embedding("patch_embed.proj"),
        *norm(f"{_BLOCK}.norm1"),
        *linear(f"{_BLOCK}.attn.qkv", "qkv", "qkv_bias", ("triple_width", "width"), "qkv_bias"),
        *linear(f"{_BLOCK}.attn.proj", "proj", "proj_bias", ("width", "width")),
        Slot(f"{_BLOCK}.ls1.gamma", "layer_scale", ("width",)),
        *norm(f"{_BLOCK}.norm2"),
        *_MLP,
        Slot(f"{_BLOCK}.ls2.gamma", "layer_scale", ("width",)),
        *_ENDS,
    ),
)
