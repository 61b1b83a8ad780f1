"""The table of layouts. A new layout is one file and one row here."""

from __future__ import annotations

from collections.abc import Mapping

from vconv.convert.layouts import (
    convnext,
    dinov2,
    dinov3_vit,
    facebook_convnext,
    facebook_dinov2,
    facebook_dinov3,
    timm_vit,
    vit,
)
from vconv.convert.layouts.base import Layout

LAYOUTS: Mapping[str, Layout] = {
    layout.family: layout
    for layout in (
        *(dinov3_vit.LAYOUT, dinov2.LAYOUT, dinov2.WITH_REGISTERS, vit.LAYOUT, convnext.DINOV3),
        *(timm_vit.DINOV3, timm_vit.DINOV2, timm_vit.VIT, convnext.TIMM),
        *(facebook_dinov3.LAYOUT, facebook_dinov2.LAYOUT, facebook_convnext.LAYOUT),
    )
}
"""Every layout, by family."""
HOMES = tuple(dict.fromkeys(layout.home for layout in LAYOUTS.values()))
"""The libraries and repositories that layouts are named by."""
