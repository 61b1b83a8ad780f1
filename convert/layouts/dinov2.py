"""DINOv2 without registers in transformers."""

from __future__ import annotations

from vconv.convert.layouts import transformers_config
from vconv.convert.layouts.base import Layout, Numbers, Slot, linear, norm, patch_embedding
from vconv.types import Config

_DEFAULTS = {
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "mlp_ratio": 4,
    "qkv_bias": True,
    "use_swiglu_ffn": False,
    "use_mask_token": True,
}
_BLOCK = "encoder.layer.{i}"
_SQUARE = ("width", "width")


def _hidden(config: Config) -> int:
    width = transformers_config.whole(config, "hidden_size")
    return int(width * transformers_config.real(config, "mlp_ratio"))


def _numbers(config: Config) -> Numbers:
    return transformers_config.read(config, _DEFAULTS, hidden=_hidden, gated="use_swiglu_ffn", any_size=True)


LAYOUT = Layout(
    family="dinov2",
    library="transformers",
    describes=transformers_config.names("dinov2"),
    numbers=_numbers,
    pooled_with=("", "classifier"),
    prefix="dinov2.",
    biases={f"attention.attention.{name}.bias": "qkv_bias" for name in ("query", "key", "value")},
    in_memory=(
        (r"\.attention\.q_proj\.", ".attention.attention.query."),
        (r"\.attention\.k_proj\.", ".attention.attention.key."),
        (r"\.attention\.v_proj\.", ".attention.attention.value."),
        (r"\.attention\.o_proj\.", ".attention.output.dense."),
        (r"(^|\.)layers?\.(\d+)\.", r"\1encoder.layer.\2."),
        (r"encoder\.encoder\.", "encoder."),
    ),
    unused=("embeddings.mask_token",),
    slots=(
        Slot("embeddings.cls_token", "token", (1, 1, "width")),
        Slot("embeddings.mask_token", "token", (1, "width"), "use_mask_token"),
        Slot("embeddings.position_embeddings", "position", (1, "positions", "width")),
        *patch_embedding("embeddings.patch_embeddings.projection"),
        *norm(f"{_BLOCK}.norm1"),
        *linear(f"{_BLOCK}.attention.attention.query", "query", "attention_bias", _SQUARE, "qkv_bias"),
        *linear(f"{_BLOCK}.attention.attention.key", "key", "attention_bias", _SQUARE, "qkv_bias"),
        *linear(f"{_BLOCK}.attention.attention.value", "value", "attention_bias", _SQUARE, "qkv_bias"),
        *linear(f"{_BLOCK}.attention.output.dense", "proj", "proj_bias", _SQUARE),
        Slot(f"{_BLOCK}.layer_scale1.lambda1", "layer_scale", ("width",)),
        *norm(f"{_BLOCK}.norm2"),
        *linear(f"{_BLOCK}.mlp.fc1", "fc1", "fc1_bias", ("hidden", "width")),
        *linear(f"{_BLOCK}.mlp.fc2", "fc2", "fc2_bias", ("width", "hidden")),
        Slot(f"{_BLOCK}.layer_scale2.lambda1", "layer_scale", ("width",)),
        *norm("layernorm"),
        *linear("classifier", "head", "head_bias", ("labels", "double_width"), head="classifier"),
    ),
)
