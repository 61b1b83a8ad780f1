"""ViT in transformers."""

from __future__ import annotations

from vconv.convert.architectures import vit
from vconv.convert.architectures.base import BLOCK
from vconv.convert.architectures.positions import Kernel
from vconv.convert.layouts.base import Layout, linear, mlp, norm, one, positions, separate_attention

_BLOCK = "encoder.layer.{i}"
_ATTENTION = f"{_BLOCK}.attention.attention"

LAYOUT = Layout(
    family="vit",
    home="transformers",
    architecture=vit.ARCHITECTURE,
    pooling="pooler",
    epsilon=1e-12,
    prefix="vit.",
    kernel=Kernel(antialias=False),
    in_memory=(
        (r"(^|\.)layers\.(\d+)\.", r"\1encoder.layer.\2."),
        (r"\.attention\.q_proj\.", ".attention.attention.query."),
        (r"\.attention\.k_proj\.", ".attention.attention.key."),
        (r"\.attention\.v_proj\.", ".attention.attention.value."),
        (r"\.attention\.o_proj\.", ".attention.output.dense."),
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
    ),
    rules=(
        one("embeddings.cls_token", "cls_token"),
        positions("embeddings.position_embeddings"),
        *linear("embeddings.patch_embeddings.projection", "patch"),
        *norm(f"{_BLOCK}.layernorm_before", f"{BLOCK}.norm1"),
        *separate_attention(
            (f"{_ATTENTION}.query", f"{_ATTENTION}.key", f"{_ATTENTION}.value"), ("qkv_bias",) * 3
        ),
        *linear(f"{_BLOCK}.attention.output.dense", f"{BLOCK}.proj"),
        *norm(f"{_BLOCK}.layernorm_after", f"{BLOCK}.norm2"),
        *mlp(f"{_BLOCK}.intermediate.dense", f"{_BLOCK}.output.dense"),
        *norm("layernorm", "norm"),
        *linear("pooler.dense", "pooler"),
        *linear("classifier", "classifier"),
    ),
)
