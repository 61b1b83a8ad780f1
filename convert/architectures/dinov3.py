"""DINOv3 ViT: RoPE instead of learned position embeddings, registers, and LayerScale.

In the released weights, all query and value biases are zero, and there is no key bias. Hence the role
``zero_bias``.
"""

from __future__ import annotations

from vconv.convert.architectures.base import Architecture, block, embeddings, gated_mlp, heads

ARCHITECTURE = Architecture(
    "dinov3",
    {
        **embeddings(),
        **block(query_bias="zero_bias", value_bias="zero_bias"),
        **gated_mlp(),
        **heads(),
    },
)
