"""DINOv2, with or without registers: learned position embeddings and LayerScale."""

from __future__ import annotations

from vconv.convert.architectures.base import Architecture, block, embeddings, gated_mlp, heads

ARCHITECTURE = Architecture(
    "dinov2", {**embeddings(learned_positions=True), **block(), **gated_mlp(), **heads()}
)
