"""DINOv2 without registers in transformers."""

from __future__ import annotations

from vconv.convert.architectures import dinov2
from vconv.convert.architectures.base import BLOCK
from vconv.convert.layouts.base import Layout, linear, mlp, norm, one, positions, separate_attention

_BLOCK = "encoder.layer.{i}"
_ATTENTION = f"{_BLOCK}.attention.attention"

LAYOUT = Layout(
    family="dinov2",
    home="transformers",
    architecture=dinov2.ARCHITECTURE,
    pooling="cls",
    epsilon=1e-6,
    prefix="dinov2.",
    in_memory=(
        (r"\.attention\.q_proj\.", ".attention.attention.query."),
        (r"\.attention\.k_proj\.", ".attention.attention.key."),
        (r"\.attention\.v_proj\.", ".attention.attention.value."),
        (r"\.attention\.o_proj\.", ".attention.output.dense."),
        (r"(^|\.)layers?\.(\d+)\.", r"\1encoder.layer.\2."),
        (r"encoder\.encoder\.", "encoder."),
    ),
    rules=(
        one("embeddings.cls_token", "cls_token"),
        one("embeddings.mask_token", "mask_token", "use_mask_token", shape=(1, "width")),
        positions("embeddings.position_embeddings"),
        *linear("embeddings.patch_embeddings.projection", "patch"),
        *norm(f"{_BLOCK}.norm1", f"{BLOCK}.norm1"),
        *separate_attention(
            (f"{_ATTENTION}.query", f"{_ATTENTION}.key", f"{_ATTENTION}.value"), ("qkv_bias",) * 3
        ),
        *linear(f"{_BLOCK}.attention.output.dense", f"{BLOCK}.proj"),
        one(f"{_BLOCK}.layer_scale1.lambda1", f"{BLOCK}.scale1"),
        *norm(f"{_BLOCK}.norm2", f"{BLOCK}.norm2"),
        *mlp(f"{_BLOCK}.mlp.fc1", f"{_BLOCK}.mlp.fc2"),
        one(f"{_BLOCK}.layer_scale2.lambda1", f"{BLOCK}.scale2"),
        *norm("layernorm", "norm"),
        *linear("classifier", "wide_classifier"),
    ),
)
