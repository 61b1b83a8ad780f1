"""The reference for what is corrected: the original model plus one plain assignment.

This file shares no code with the patch of RoPE periods: it uses NumPy instead of torch, and rounds in another
way. It shares none with the resampling of positions either, which uses matrices instead of torch. A wrong
correction therefore disagrees with the reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from vconv.types import Config

Stored = NDArray[np.float32] | None
"""The RoPE periods that a checkpoint stores; None if it stores none."""


def authors_periods(base: float, head_dim: int) -> NDArray[np.float32]:
    """Compute a DINOv3 network's RoPE periods as its authors store them: rounded to bfloat16, half to even.

    Args:
        base: the base of the periods.
        head_dim: number of channels per attention head.

    Returns:
        float32 (head_dim / 4,).
    """
    exact = np.array([base ** (4 * index / head_dim) for index in range(head_dim // 4)], np.float32)
    bits = exact.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return rounded.astype(np.uint32).view(np.float32)


def _correct_transformers(model: Any, config: Config, stored: Stored) -> None:
    head_dim = config["hidden_size"] // config["num_attention_heads"]
    periods = authors_periods(float(config.get("rope_theta", 100.0)), head_dim) if stored is None else stored
    model.rope_embeddings.inv_freq = torch.from_numpy(1 / periods)


def _correct_timm(model: Any, config: Config, stored: Stored) -> None:
    head_dim = model.embed_dim // model.blocks[0].attn.num_heads
    periods = authors_periods(float(model.rope.temperature), head_dim) if stored is None else stored
    model.rope.periods = torch.from_numpy(periods)
    if model.rope.pos_embed_cached is not None:
        model.rope.pos_embed_cached = model.rope.get_embed(model.rope.feat_shape)


_CORRECTIONS: Mapping[str, Callable[[Any, Config, Stored], None]] = {
    "dinov3_vit": _correct_transformers,
    "timm dinov3": _correct_timm,
}
"""The correction of each family, which turns the library's model into the authors' network."""


def correct(model: nn.Module, family: str, config: Config, periods: Sequence[float] | None = None) -> str:
    """Turn an original into the reference, in place, if its family needs a correction.

    Args:
        model: the original, on CPU in float32.
        family: the family of its layout.
        config: its ``config.json``.
        periods: the RoPE periods that the checkpoint stores; None to compute those of the authors.

    Returns:
        The name of the reference in reports.
    """
    if family not in _CORRECTIONS:
        return "original"
    _CORRECTIONS[family](model, config, None if periods is None else np.array(periods, np.float32))
    return "original + authors' periods" if periods is None else "original + its checkpoint's periods"


_POSITIONS = ("position_embeddings", "pos_embed")
"""Names of the position embedding, in transformers and in timm."""
_OFFSET = 0.1


def resample_positions(model: nn.Module, grid: tuple[int, int]) -> str:
    """Resample the positions of a DINOv2 without registers as its authors do, in place.

    ``interpolate_pos_encoding`` (facebookresearch/dinov2, ``dinov2/models/vision_transformer.py``) resamples
    the patches' positions, a square of N rows, with ``torch.nn.functional.interpolate``: mode ``bicubic``,
    without antialias, and for n rows with the scale factor (n + 0.1) / N, likewise for columns. The number
    0.1 is their ``interpolate_offset``. The position of the class token stays as it is.

    Args:
        model: the original, on CPU in float32.
        grid: (rows, columns) of the patches of an image.

    Returns:
        The name of the reference in reports.
    """
    holder: Any
    holder, name = next(
        (module, name) for module in model.modules() for name in _POSITIONS if hasattr(module, name)
    )
    stored = getattr(holder, name).detach()
    side = math.isqrt(stored.shape[1] - 1)
    image = stored[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    scale = tuple((count + _OFFSET) / side for count in grid)
    patches = functional.interpolate(image, scale_factor=scale, mode="bicubic", antialias=False)
    made = torch.cat([stored[:, :1], patches.flatten(2).transpose(1, 2)], dim=1)
    setattr(holder, name, nn.Parameter(made, requires_grad=False))
    if name == "pos_embed":
        holder.patch_embed.grid_size = grid  # from which timm resamples: to the same grid it does nothing
    return "original + positions by the authors' kernel"
