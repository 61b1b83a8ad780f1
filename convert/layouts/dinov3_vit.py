"""DINOv3 ViT in transformers."""

from __future__ import annotations

from vconv.convert.architectures import dinov3
from vconv.convert.architectures.base import BLOCK, PLAIN_MLP
from vconv.convert.layouts.base import Layout, gated_mlp, linear, mlp, norm, one, separate_attention

_BLOCK = "layer.{i}"
_ATTENTION = f"{_BLOCK}.attention"

LAYOUT = Layout(
    family="dinov3_vit",
    home="transformers",
    architecture=dinov3.ARCHITECTURE,
    pooling="cls",
    epsilon=1e-5,
    in_memory=((r"^model\.layer\.", "layer."),),
    rules=(
        one("embeddings.cls_token", "cls_token"),
        one("embeddings.mask_token", "mask_token"),
        one("embeddings.register_tokens", "registers"),
        *linear("embeddings.patch_embeddings", "patch"),
        *norm(f"{_BLOCK}.norm1", f"{BLOCK}.norm1"),
        *separate_attention(
            (f"{_ATTENTION}.q_proj", f"{_ATTENTION}.k_proj", f"{_ATTENTION}.v_proj"),
            ("query_bias", "key_bias", "value_bias"),
        ),
        *linear(f"{_ATTENTION}.o_proj", f"{BLOCK}.proj", "proj_bias"),
        one(f"{_BLOCK}.layer_scale1.lambda1", f"{BLOCK}.scale1"),
        *norm(f"{_BLOCK}.norm2", f"{BLOCK}.norm2"),
        *mlp(f"{_BLOCK}.mlp.up_proj", f"{_BLOCK}.mlp.down_proj", "mlp_bias", PLAIN_MLP),
        *gated_mlp(f"{_BLOCK}.mlp.gate_proj", f"{_BLOCK}.mlp.up_proj", f"{_BLOCK}.mlp.down_proj", "mlp_bias"),
        one(f"{_BLOCK}.layer_scale2.lambda1", f"{BLOCK}.scale2"),
        *norm("norm", "norm"),
    ),
)
