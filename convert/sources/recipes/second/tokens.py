"""What turns an image into tokens, and the norms, in version 2 of the recipe."""

from __future__ import annotations

import math

import numpy as np

from vconv.convert.sources.recipes.base import Context, Draw, Wide, settled, smooth_over_grid
from vconv.convert.sources.recipes.second.channels import (
    CLASS_CHANNEL,
    CLASS_TOKEN,
    LAST,
    channel_of,
    great,
    has_class_token,
    kept,
)

FREQUENCIES = 6.0
"""The greatest frequency of a patch filter, in half periods per side of the patch."""
PATCH, PATCH_BIAS = 0.18, 0.02
TOKEN = 0.03
KEPT_POSITION, POSITION = 0.13, 0.003
"""Standard deviation of the position embedding in the kept channels, and in the others, about."""
CLASS_NORM, LAST_NORM = 0.75, 0.2
"""Weights of the norms for the class token's channel, and for those of great magnitude at the end."""
NORM_SPREAD = 0.2
"""Standard deviation of the logarithm of the norms' weights."""


def patch(n: Draw, context: Context) -> Draw:
    """Draw filters in the cosine domain, with a gain that evens out the spectrum of photographs."""
    side = n.shape[-1]
    places = np.arange(side)
    cosines = settled(np.cos(np.pi * np.outer(places, places + 0.5) / side) * math.sqrt(2 / side))
    cosines[0] *= math.sqrt(0.5)
    radius = np.hypot(places[:, None], places)
    gain = np.where(radius <= FREQUENCIES, radius + 0.5, 0.0)
    size = PATCH / side / math.sqrt(n.shape[1] * np.count_nonzero(gain))
    filters = _waves(_waves(n * (gain * size), cosines).swapaxes(2, 3), cosines).swapaxes(2, 3)
    return filters.astype(np.float32)


def _waves(amplitudes: Wide, cosines: Wide) -> Wide:
    """Sum waves along the last axis, in this order on every processor."""
    found = np.zeros_like(amplitudes)
    for frequency, wave in enumerate(cosines):
        found += amplitudes[..., frequency, None] * wave
    return found


def class_token(n: Draw, _: Context) -> Draw:
    """Scale the class token, and set its own channel."""
    token: Draw = n * np.float32(TOKEN)
    width = n.shape[-1]
    token[..., channel_of(CLASS_CHANNEL, width)] = great(CLASS_TOKEN, width)
    return token


def position(n: Draw, _: Context) -> Draw:
    """Make position embeddings of neighbours alike, and put most of them into the kept channels."""
    smooth = smooth_over_grid(n, 1.0)
    embedding = 0.3 * n.astype(np.float64)
    embedding[0, n.shape[1] - len(smooth) :] += smooth
    return (embedding * np.where(kept(n.shape[-1]), KEPT_POSITION, POSITION)).astype(np.float32)


def norm(n: Draw, context: Context) -> Draw:
    """Scale the weight of a norm."""
    weight, width = np.exp(NORM_SPREAD * n.astype(np.float64)), len(n)
    if not has_class_token(context):
        return weight.astype(np.float32)
    weight[channel_of(CLASS_CHANNEL, width)] = CLASS_NORM
    if context.tensor.block is None or context.last:
        for channel, _ in LAST:
            weight[channel_of(channel, width)] = LAST_NORM
    return weight.astype(np.float32)
