"""What both residual branches of a block have in version 2 of the recipe."""

from __future__ import annotations

import math

import numpy as np

from vconv.convert.sources.recipes.base import Context, Draw, Wide
from vconv.convert.sources.recipes.second import profile
from vconv.convert.sources.recipes.second.channels import CLASS_CHANNEL, LAST, channel_of

SCALE_SPREAD = 0.25
"""Standard deviation of the logarithm of LayerScale."""
STAGE_SCALE = 0.3
"""LayerScale of the blocks of stages, which were not measured."""


def depth_of(context: Context) -> profile.Depth:
    """Return the profile's numbers at the tensor's depth."""
    block = context.tensor.block
    assert block is not None, context.tensor.key
    return profile.at(block, context.blocks)


def mixed(first: Draw, second: Draw, share: float) -> Wide:
    """Return noise that has a share of the first noise in it, of the same variance."""
    return share * first.astype(np.float64) + math.sqrt(1 - share**2) * second


def scales(context: Context, scale: float) -> tuple[float, float]:
    """Return LayerScale, and the factor on the projections of a network that has none, which do its work."""
    return (scale, 1.0) if context.layer_scale else (1.0, scale)


def _layer_scale(n: Draw, context: Context, middle: float) -> Draw:
    scale = middle * np.exp(SCALE_SPREAD * n.astype(np.float64))
    for channel in {CLASS_CHANNEL, *dict(LAST)}:
        scale[channel_of(channel, len(scale))] = middle
    return scale.astype(np.float32)


def attention_scale(n: Draw, context: Context) -> Draw:
    """Scale LayerScale of attention."""
    return _layer_scale(n, context, depth_of(context).attention)


def mlp_scale(n: Draw, context: Context) -> Draw:
    """Scale LayerScale of the MLP."""
    return _layer_scale(n, context, STAGE_SCALE if context.network.stages else depth_of(context).mlp)
