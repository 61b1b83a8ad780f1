"""DINOv2 in transformers, with or without registers."""

from __future__ import annotations

from vconv.convert.architectures import dinov2
from vconv.convert.architectures.base import BLOCK, PLAIN_MLP
from vconv.convert.architectures.positions import Kernel
from vconv.convert.layouts.base import (
    Layout,
    Rule,
    linear,
    mlp,
    norm,
    one,
    packed_gated_mlp,
    positions,
    separate_attention,
)

_BLOCK = "encoder.layer.{i}"
_ATTENTION = f"{_BLOCK}.attention.attention"

_IN_MEMORY = (
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (r"(^|\.)layers?\.(\d+)\.", r"\1encoder.layer.\2."),
    (r"encoder\.encoder\.", "encoder."),
    (r"\.mlp\.(gate|up)_proj\.", ".mlp.weights_in."),
    (r"\.mlp\.down_proj\.", ".mlp.weights_out."),
)
_BLOCKS_AND_HEAD = (
    positions("embeddings.position_embeddings"),
    *linear("embeddings.patch_embeddings.projection", "patch"),
    *norm(f"{_BLOCK}.norm1", f"{BLOCK}.norm1"),
    *separate_attention(
        (f"{_ATTENTION}.query", f"{_ATTENTION}.key", f"{_ATTENTION}.value"), ("qkv_bias",) * 3
    ),
    *linear(f"{_BLOCK}.attention.output.dense", f"{BLOCK}.proj"),
    one(f"{_BLOCK}.layer_scale1.lambda1", f"{BLOCK}.scale1"),
    *norm(f"{_BLOCK}.norm2", f"{BLOCK}.norm2"),
    *mlp(f"{_BLOCK}.mlp.fc1", f"{_BLOCK}.mlp.fc2", when=PLAIN_MLP),
    *packed_gated_mlp(f"{_BLOCK}.mlp.weights_in", f"{_BLOCK}.mlp.weights_out"),
    one(f"{_BLOCK}.layer_scale2.lambda1", f"{BLOCK}.scale2"),
    *norm("layernorm", "norm"),
    *linear("classifier", "wide_classifier"),
)


def _layout(family: str, kernel: Kernel, *tokens: Rule) -> Layout:
    return Layout(
        family,
        "transformers",
        dinov2.ARCHITECTURE,
        (one("embeddings.cls_token", "cls_token"), *tokens, *_BLOCKS_AND_HEAD),
        pooling="cls",
        epsilon=1e-6,
        prefix=f"{family}.",
        in_memory=_IN_MEMORY,
        kernel=kernel,
    )


LAYOUT = _layout(
    "dinov2",
    Kernel(antialias=False),
    one("embeddings.mask_token", "mask_token", "use_mask_token", shape=(1, "width")),
)
WITH_REGISTERS = _layout(
    "dinov2_with_registers",
    Kernel(antialias=True),
    one("embeddings.mask_token", "mask_token", shape=(1, "width")),
    one("embeddings.register_tokens", "registers"),
)
