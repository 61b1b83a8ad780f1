"""DINOv3 ViT: RoPE in place of learned positions, registers, LayerScale.

The released weights have query and value biases that are all zero, and no key bias: hence the roles.
"""

from __future__ import annotations

from vconv.convert.architectures.base import Architecture, block, embeddings, heads

ARCHITECTURE = Architecture(
    "dinov3", {**embeddings(), **block(query_bias="zero_bias", value_bias="zero_bias"), **heads()}
)
