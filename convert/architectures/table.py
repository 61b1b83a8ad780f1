"""The table of architectures. A new architecture is one file and one row here."""

from __future__ import annotations

from collections.abc import Mapping

from vconv.convert.architectures import convnext, dinov2, dinov3, vit
from vconv.convert.architectures.base import Architecture

ARCHITECTURES: Mapping[str, Architecture] = {
    architecture.name: architecture
    for architecture in (dinov3.ARCHITECTURE, dinov2.ARCHITECTURE, vit.ARCHITECTURE, convnext.ARCHITECTURE)
}
"""Every architecture, by name."""
