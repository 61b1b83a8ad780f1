"""What narrow networks beyond the catalog are made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

SMALL: dict[str, Any] = dict(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    image_size=32,
    patch_size=16,
)
PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": 32, "width": 32},
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.25],
}


def scattered(model: nn.Module) -> nn.Module:
    """Give a fresh model biases, LayerScales and running statistics as a trained one has them."""
    torch.manual_seed(0)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if not tensor.is_floating_point():
            continue
        if "table" in name or tensor.dim() <= 1:
            tensor.data = 0.3 * torch.randn(tensor.shape) + ("bias" not in name and "mean" not in name)
        else:
            tensor.data = torch.randn(tensor.shape) / tensor[0].numel() ** 0.5
        if "running_var" in name:
            tensor.data = tensor.data.abs() + 0.5
    return model.eval()
