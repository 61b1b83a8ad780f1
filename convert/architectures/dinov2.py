"""DINOv2, with registers or without: learned positions and LayerScale."""

from __future__ import annotations

from vconv.convert.architectures.base import Architecture, block, embeddings, heads

ARCHITECTURE = Architecture("dinov2", {**embeddings(learned_positions=True), **block(), **heads()})
