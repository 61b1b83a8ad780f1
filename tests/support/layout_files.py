"""Checkpoints in every layout, and the systems that they are opened for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import published_formulas as published
import safetensors.torch
import torch
from published_formulas import DINOV2, DINOV3, State
from torch import Tensor

from vconv.catalog.systems import SYSTEMS, System, miniature
from vconv.convert.sources.base import Source
from vconv.convert.sources.table import Request, open_source
from vconv.types import silent

TRANSFORMERS3, TIMM3 = "dinov3-vits16", "vit_small_patch16_dinov3.lvd1689m"
TRANSFORMERS2, TIMM2 = "dinov2-large", "vit_small_patch14_reg4_dinov2.lvd142m"
VIT, TIMM_VIT = "vit-base-patch16-224-in21k", "vit_base_patch16_224.orig_in21k"
GATED = [
    (DINOV3, "dinov3-vits16plus", {"gated": True}),
    (DINOV3, "vit_small_plus_patch16_dinov3.lvd1689m", {"gated": True}),
    (DINOV3, "dinov3-vit7b16", {"gated": True, "bias": None}),
    (DINOV2, "vit_giant_patch14_reg4_dinov2.lvd142m", {"gated": True, "hidden": 96}),
]
"""Networks with gated MLPs: the family, the system, and what is drawn for it."""


def small(name: str) -> System:
    """Return the miniature of a system, with a position embedding for its own image size."""
    system = miniature(SYSTEMS[name])
    side = published.GRID * 14
    return replace(system, config={**system.config, "image_size": side}) if name == TRANSFORMERS2 else system


def opened(name: str, state: State, folder: Path, lines: list[str] | None = None, **options: Any) -> Source:
    """Save a state dict as a file, and open it as weights of a system."""
    folder.mkdir(parents=True)
    (folder / "scratch").mkdir()
    torch.save(state, folder / "weights.pth")
    asked = Request(small(name), str(folder / "weights.pth"), **options)
    return open_source(asked, folder / "scratch", silent if lines is None else lines.append)


def pictures(family: str) -> Tensor:
    side = published.GRID * published.PATCH[family]
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def distance(actual: Any, expected: Any) -> float:
    actual, expected = np.float64(actual), np.float64(expected)
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def matching(name: str, other: str) -> dict[str, System]:
    """Return the miniatures of two systems, with the same position embedding."""
    systems = [miniature(SYSTEMS[name]), miniature(SYSTEMS[other])]
    (side,) = (row.config["pretrained_cfg"]["input_size"][1] for row in systems if row.library == "timm")
    return {
        row.name: row if row.library == "timm" else replace(row, config={**row.config, "image_size": side})
        for row in systems
    }


def stock_folder(system: System, folder: Path) -> State:
    """Save what a library builds, with random values, as a user has it; return the tensors."""
    folder.mkdir()
    drawn_source = open_source(Request(system, "synthetic:3"), folder)
    mapped = safetensors.torch.load_file(folder / "model.safetensors")
    tensors = {name: value.clone() for name, value in mapped.items()}
    for name, value in tensors.items():
        if name.endswith(("q_proj.bias", "v_proj.bias")):
            value += 0.1
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    assert drawn_source.regrouped is None
    return tensors
