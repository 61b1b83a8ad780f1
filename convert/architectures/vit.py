"""ViT: learned position embeddings, no LayerScale, and a pooler in transformers."""

from __future__ import annotations

from vconv.convert.architectures.base import Architecture, block, embeddings, heads

ARCHITECTURE = Architecture(
    "vit",
    {
        **embeddings(learned_positions=True, registers=False),
        **block(layer_scale=False),
        **heads(pooler=True),
    },
)
