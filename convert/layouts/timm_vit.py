"""DINOv3 (``Eva``), DINOv2 and ViT (``VisionTransformer``) in timm."""

from __future__ import annotations

from vconv.convert.architectures import dinov2, dinov3, vit
from vconv.convert.architectures.base import BLOCK, PLAIN_MLP
from vconv.convert.architectures.positions import Kernel
from vconv.convert.layouts.base import (
    Layout,
    Rule,
    fused_attention,
    gated_mlp,
    linear,
    mlp,
    norm,
    one,
    packed_gated_mlp,
    positions,
)

_FC1, _FC2 = f"{BLOCK}.mlp.fc1", f"{BLOCK}.mlp.fc2"
_ENDS = (
    *norm("norm", "norm", "norm"),
    *norm("fc_norm", "pooled_norm", "fc_norm"),
    *linear("head", "classifier"),
)
_FUSED = (
    fused_attention(f"{BLOCK}.attn.qkv.weight", "weight", "qkv"),
    fused_attention(f"{BLOCK}.attn.qkv.bias", "bias", "qkv_bias", "qkv_bias"),
)

DINOV3 = Layout(
    family="timm dinov3",
    home="timm",
    architecture=dinov3.ARCHITECTURE,
    pooling="avg",
    epsilon=1e-5,
    options={"q_bias": "qkv_bias"},
    rules=(
        one("cls_token", "cls_token"),
        one("reg_token", "registers", "registers"),
        *linear("patch_embed.proj", "patch"),
        *norm(f"{BLOCK}.norm1", f"{BLOCK}.norm1"),
        one(f"{BLOCK}.attn.q_bias", f"{BLOCK}.query.bias", "q_bias"),
        one(f"{BLOCK}.attn.v_bias", f"{BLOCK}.value.bias", "q_bias"),
        fused_attention(f"{BLOCK}.attn.qkv.weight", "weight", "qkv"),
        *linear(f"{BLOCK}.attn.proj", f"{BLOCK}.proj"),
        one(f"{BLOCK}.gamma_1", f"{BLOCK}.scale1"),
        *norm(f"{BLOCK}.norm2", f"{BLOCK}.norm2"),
        *mlp(_FC1, _FC2, when=PLAIN_MLP),
        *gated_mlp(f"{_FC1}_g", f"{_FC1}_x", _FC2),
        one(f"{BLOCK}.gamma_2", f"{BLOCK}.scale2"),
        *_ENDS,
    ),
)

DINOV2 = Layout(
    family="timm dinov2",
    home="timm",
    architecture=dinov2.ARCHITECTURE,
    kernel=Kernel(antialias=True),
    pooling="cls",
    epsilon=1e-6,
    rules=(
        Rule(("cls_token",), ("cls_token",), plus="cls_position"),
        one("reg_token", "registers", "registers"),
        positions("pos_embed"),
        *linear("patch_embed.proj", "patch"),
        *norm(f"{BLOCK}.norm1", f"{BLOCK}.norm1"),
        *_FUSED,
        *linear(f"{BLOCK}.attn.proj", f"{BLOCK}.proj"),
        one(f"{BLOCK}.ls1.gamma", f"{BLOCK}.scale1"),
        *norm(f"{BLOCK}.norm2", f"{BLOCK}.norm2"),
        *mlp(_FC1, _FC2, when=PLAIN_MLP),
        *packed_gated_mlp(_FC1, _FC2),
        one(f"{BLOCK}.ls2.gamma", f"{BLOCK}.scale2"),
        *_ENDS,
    ),
)

VIT = Layout(
    family="timm vit",
    home="timm",
    architecture=vit.ARCHITECTURE,
    kernel=Kernel(antialias=True),
    pooling="cls",
    epsilon=1e-6,
    rules=(
        Rule(("cls_token",), ("cls_token",), plus="cls_position"),
        positions("pos_embed"),
        *linear("patch_embed.proj", "patch"),
        *norm(f"{BLOCK}.norm1", f"{BLOCK}.norm1"),
        *_FUSED,
        *linear(f"{BLOCK}.attn.proj", f"{BLOCK}.proj"),
        *norm(f"{BLOCK}.norm2", f"{BLOCK}.norm2"),
        *mlp(_FC1, _FC2),
        *_ENDS,
    ),
)
