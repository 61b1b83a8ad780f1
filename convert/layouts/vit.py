"""ViT in transformers."""

from __future__ import annotations

from vconv.convert.layouts import transformers_config
from vconv.convert.layouts.base import Layout, Numbers, Slot, linear, norm, patch_embedding
from vconv.types import Config

_DEFAULTS = {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "qkv_bias": True}
_BLOCK = "encoder.layer.{i}"
_SQUARE = ("width", "width")


def _numbers(config: Config) -> Numbers:
    return transformers_config.read(
        config,
        _DEFAULTS,
        hidden=lambda config: transformers_config.whole(config, "intermediate_size"),
        pooling="pooler",
    )


LAYOUT = Layout(
    family="vit",
    library="transformers",
    describes=transformers_config.names("vit"),
    numbers=_numbers,
    pooled_with=("pooler",),
    prefix="vit.",
    biases={f"attention.attention.{name}.bias": "qkv_bias" for name in ("query", "key", "value")},
    in_memory=(
        (r"(^|\.)layers\.(\d+)\.", r"\1encoder.layer.\2."),
        (r"\.attention\.q_proj\.", ".attention.attention.query."),
        (r"\.attention\.k_proj\.", ".attention.attention.key."),
        (r"\.attention\.v_proj\.", ".attention.attention.value."),
        (r"\.attention\.o_proj\.", ".attention.output.dense."),
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
    ),
    slots=(
        Slot("embeddings.cls_token", "token", (1, 1, "width")),
        Slot("embeddings.position_embeddings", "position", (1, "positions", "width")),
        *patch_embedding("embeddings.patch_embeddings.projection"),
        *norm(f"{_BLOCK}.layernorm_before"),
        *linear(f"{_BLOCK}.attention.attention.query", "query", "attention_bias", _SQUARE, "qkv_bias"),
        *linear(f"{_BLOCK}.attention.attention.key", "key", "attention_bias", _SQUARE, "qkv_bias"),
        *linear(f"{_BLOCK}.attention.attention.value", "value", "attention_bias", _SQUARE, "qkv_bias"),
        *linear(f"{_BLOCK}.attention.output.dense", "proj", "proj_bias", _SQUARE),
        *norm(f"{_BLOCK}.layernorm_after"),
        *linear(f"{_BLOCK}.intermediate.dense", "fc1", "fc1_bias", ("hidden", "width")),
        *linear(f"{_BLOCK}.output.dense", "fc2", "fc2_bias", ("width", "hidden")),
        *norm("layernorm"),
        *linear("pooler.dense", "head", "head_bias", _SQUARE, head="pooler"),
        *linear("classifier", "head", "head_bias", ("labels", "width"), head="classifier"),
    ),
)
