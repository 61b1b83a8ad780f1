"""The families of systems, each with its table of sizes. One file for the families of a publication."""

from __future__ import annotations

from vconv.catalog.families import convnext, dinov2, dinov3, vit
from vconv.catalog.families.base import Family

FAMILIES: tuple[Family, ...] = (
    dinov3.VIT,
    dinov3.VIT_SATELLITE,
    dinov3.TIMM_VIT,
    dinov3.TIMM_VIT_SATELLITE,
    convnext.DINOV3,
    convnext.TIMM,
    dinov2.DINOV2,
    dinov2.REGISTERS,
    dinov2.TIMM_REGISTERS,
    dinov2.TIMM,
    vit.IN21K,
    vit.IN1K,
    vit.TIMM_IN21K,
    vit.TIMM_IN1K,
)
"""Every family, in the order in which they are listed. A new size is one row of its family's table."""
