"""DINOv2 as its authors publish it (facebookresearch/dinov2), with or without registers."""

from __future__ import annotations

from vconv.convert.architectures import dinov2
from vconv.convert.architectures.base import BLOCK, PLAIN_MLP
from vconv.convert.layouts.base import (
    Layout,
    fused_attention,
    linear,
    mlp,
    norm,
    one,
    packed_gated_mlp,
    positions,
)

LAYOUT = Layout(
    family="facebook dinov2",
    home="facebook",
    architecture=dinov2.ARCHITECTURE,
    pooling="cls",
    epsilon=1e-6,
    rules=(
        one("cls_token", "cls_token"),
        positions("pos_embed"),
        one("register_tokens", "registers", "registers"),
        one("mask_token", "mask_token", "mask_token", shape=(1, "width")),
        *linear("patch_embed.proj", "patch"),
        *norm(f"{BLOCK}.norm1", f"{BLOCK}.norm1"),
        fused_attention(f"{BLOCK}.attn.qkv.weight", "weight", "qkv"),
        fused_attention(f"{BLOCK}.attn.qkv.bias", "bias", "qkv_bias", "qkv_bias"),
        *linear(f"{BLOCK}.attn.proj", f"{BLOCK}.proj"),
        one(f"{BLOCK}.ls1.gamma", f"{BLOCK}.scale1"),
        *norm(f"{BLOCK}.norm2", f"{BLOCK}.norm2"),
        *mlp(f"{BLOCK}.mlp.fc1", f"{BLOCK}.mlp.fc2", when=PLAIN_MLP),
        *packed_gated_mlp(f"{BLOCK}.mlp.w12", f"{BLOCK}.mlp.w3"),
        one(f"{BLOCK}.ls2.gamma", f"{BLOCK}.scale2"),
        *norm("norm", "norm"),
    ),
)
