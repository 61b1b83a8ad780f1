"""The reference of a corrective patch: the original plus one plain buffer assignment.

This is written apart from the patch and shares no code with it: another library, another way of rounding.
A patch that is wrong disagrees with it.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vconv.types import Config


def authors_periods(config: Config) -> NDArray[np.float32]:
    """Compute a DINOv3 network's RoPE periods as its authors store them, by rounding bits to even.

    Args:
        config: the original's ``config.json``.

    Returns:
        float32 (head_dim / 4,).
    """
    head_dim = config["hidden_size"] // config["num_attention_heads"]
    base = float(config.get("rope_theta", 100.0))
    exact = np.array([base ** (4 * index / head_dim) for index in range(head_dim // 4)], np.float32)
    bits = exact.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return rounded.astype(np.uint32).view(np.float32)


def correct(model: nn.Module, config: Config) -> str:
    """Turn an original into the reference, in place, if its family calls for it.

    Args:
        model: the original, on CPU in float32.
        config: its ``config.json``.

    Returns:
        What the reference is called in reports.
    """
    if config.get("model_type") != "dinov3_vit":
        return "original"
    model.rope_embeddings.inv_freq = torch.from_numpy(1 / authors_periods(config))  # type: ignore[union-attr]
    return "original + authors' periods"
