"""DINOv3 ViT as its authors publish it (facebookresearch/dinov3): ``.pth`` files, or safetensors of them.

Two buffers of these files are no parameters. The authors' model multiplies the fused bias by ``bias_mask``,
which is 1 for query and value and 0 for key. ``rope_embed.periods`` are the RoPE periods, which neither
transformers nor timm reads from a file.
"""

from __future__ import annotations

from vconv.convert.architectures import dinov3
from vconv.convert.architectures.base import BLOCK, PLAIN_MLP
from vconv.convert.layouts.base import Extra, Layout, Use, fused_attention, gated_mlp, linear, mlp, norm, one

LAYOUT = Layout(
    family="facebook dinov3",
    home="facebook",
    architecture=dinov3.ARCHITECTURE,
    pooling="cls",
    epsilon=1e-5,
    rules=(
        one("cls_token", "cls_token"),
        one("storage_tokens", "registers", "registers"),
        one("mask_token", "mask_token", "mask_token", shape=(1, "width")),
        *linear("patch_embed.proj", "patch"),
        *norm(f"{BLOCK}.norm1", f"{BLOCK}.norm1"),
        fused_attention(f"{BLOCK}.attn.qkv.weight", "weight", "qkv"),
        fused_attention(f"{BLOCK}.attn.qkv.bias", "bias", "qkv_bias", "qkv_bias"),
        *linear(f"{BLOCK}.attn.proj", f"{BLOCK}.proj"),
        one(f"{BLOCK}.ls1.gamma", f"{BLOCK}.scale1"),
        *norm(f"{BLOCK}.norm2", f"{BLOCK}.norm2"),
        *mlp(f"{BLOCK}.mlp.fc1", f"{BLOCK}.mlp.fc2", when=PLAIN_MLP),
        *gated_mlp(f"{BLOCK}.mlp.w1", f"{BLOCK}.mlp.w2", f"{BLOCK}.mlp.w3"),
        one(f"{BLOCK}.ls2.gamma", f"{BLOCK}.scale2"),
        *norm("norm", "norm"),
    ),
    extras=(
        Extra(f"{BLOCK}.attn.qkv.bias_mask", Use.BIAS_MASK, ("triple_width",), f"{BLOCK}.attn.qkv.bias"),
        Extra("rope_embed.periods", Use.PERIODS, ("periods",)),
        Extra("local_cls_norm.weight", Use.TRAINING, ("width",)),
        Extra("local_cls_norm.bias", Use.TRAINING, ("width",)),
    ),
)
