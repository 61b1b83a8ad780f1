"""Attention as plain operators, for export: two matrix products and a softmax, with no mask.

The library's own attention exports as a fused operator that the ONNX exporter takes apart with masks,
``IsNaN`` and ``Where`` around the softmax. What is written here is what runtimes recognise and fuse.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "vconv_plain"


def plain_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Compute softmax(q k' * scaling) v.

    Args:
        module: the attention module; unused, part of transformers' interface.
        query: (B, heads, N, head_dim), and likewise ``key`` and ``value``.
        key: see ``query``.
        value: see ``query``.
        attention_mask: must be None: these models attend to every token.
        scaling: factor on the logits.
        dropout: must be 0: export is for inference.
        kwargs: what else transformers passes; unused.

    Returns:
        The attended values (B, N, heads, head_dim) and the weights (B, heads, N, N).
    """
    if attention_mask is not None or dropout:
        raise ValueError("plain attention takes neither a mask nor dropout")
    weights = torch.softmax(torch.matmul(query, key.transpose(2, 3)) * scaling, dim=-1)
    return torch.matmul(weights, value).transpose(1, 2), weights


@contextlib.contextmanager
def plain(model: Any) -> Iterator[None]:
    """Make a transformers model use :func:`plain_attention`, and give it its own back on exit."""
    before = model.config._attn_implementation
    ALL_ATTENTION_FUNCTIONS[NAME] = plain_attention
    try:
        model.set_attn_implementation(NAME)
        yield
    finally:
        model.set_attn_implementation(before)
        del ALL_ATTENTION_FUNCTIONS[NAME]
