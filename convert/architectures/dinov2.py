"""DINOv2, with or without registers: learned position embeddings and LayerScale."""

from __future__ import annotations

from vconv.convert.architectures.base import Architecture, block, embeddings, gated_mlp, heads
from vconv.convert.architectures.positions import Kernel

ARCHITECTURE = Architecture(
    "dinov2",
    {**embeddings(learned_positions=True), **block(), **gated_mlp(), **heads()},
    kernel=Kernel(antialias=False, offset=0.1),
)
"""Its authors' kernel is that of facebookresearch/dinov2 without registers. With registers, their kernel has
antialias and no offset, and so it has in every library."""
