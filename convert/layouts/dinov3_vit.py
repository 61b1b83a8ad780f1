"""DINOv3 ViT in transformers."""

from __future__ import annotations

from vconv.convert.layouts import transformers_config
from vconv.convert.layouts.base import Layout, Numbers, Slot, linear, norm, patch_embedding
from vconv.types import Config

_DEFAULTS = {
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "rope_theta": 100.0,
    "query_bias": True,
    "key_bias": False,
    "value_bias": True,
    "proj_bias": True,
    "mlp_bias": True,
    "use_gated_mlp": False,
    "num_register_tokens": 0,
}
_BLOCK = "layer.{i}"
_SQUARE = ("width", "width")


def _numbers(config: Config) -> Numbers:
    return transformers_config.read(
        config,
        _DEFAULTS,
        hidden=lambda config: transformers_config.whole(config, "intermediate_size"),
        gated="use_gated_mlp",
        learned_positions=False,
        any_size=True,
    )


LAYOUT = Layout(
    family="dinov3_vit",
    library="transformers",
    describes=transformers_config.names("dinov3_vit"),
    numbers=_numbers,
    pooled_with=("",),
    biases={
        "attention.q_proj.bias": "query_bias",
        "attention.k_proj.bias": "key_bias",
        "attention.v_proj.bias": "value_bias",
    },
    in_memory=((r"^model\.layer\.", "layer."),),
    unused=("embeddings.mask_token",),
    slots=(
        Slot("embeddings.cls_token", "token", (1, 1, "width")),
        Slot("embeddings.mask_token", "token", (1, 1, "width")),
        Slot("embeddings.register_tokens", "token", (1, "registers", "width")),
        *patch_embedding("embeddings.patch_embeddings"),
        *norm(f"{_BLOCK}.norm1"),
        *linear(f"{_BLOCK}.attention.q_proj", "query", "zero_bias", _SQUARE, "query_bias"),
        *linear(f"{_BLOCK}.attention.k_proj", "key", "attention_bias", _SQUARE, "key_bias"),
        *linear(f"{_BLOCK}.attention.v_proj", "value", "zero_bias", _SQUARE, "value_bias"),
        *linear(f"{_BLOCK}.attention.o_proj", "proj", "proj_bias", _SQUARE, "proj_bias"),
        Slot(f"{_BLOCK}.layer_scale1.lambda1", "layer_scale", ("width",)),
        *norm(f"{_BLOCK}.norm2"),
        *linear(f"{_BLOCK}.mlp.up_proj", "fc1", "fc1_bias", ("hidden", "width"), "mlp_bias"),
        *linear(f"{_BLOCK}.mlp.down_proj", "fc2", "fc2_bias", ("width", "hidden"), "mlp_bias"),
        Slot(f"{_BLOCK}.layer_scale2.lambda1", "layer_scale", ("width",)),
        *norm("norm"),
    ),
)
