"""The table of layouts. A new layout is one file and one row here."""

from __future__ import annotations

from collections.abc import Mapping

from vconv.convert.layouts import convnext, dinov2, dinov3_vit, timm_vit, vit
from vconv.convert.layouts.base import Layout

LAYOUTS: Mapping[str, Layout] = {
    layout.family: layout
    for layout in (
        dinov3_vit.LAYOUT,
        dinov2.LAYOUT,
        dinov2.WITH_REGISTERS,
        vit.LAYOUT,
        timm_vit.DINOV3,
        timm_vit.DINOV2,
        timm_vit.VIT,
        convnext.DINOV3,
        convnext.TIMM,
    )
}
"""Every layout, by family."""
