"""Attention in version 2 of the recipe."""

from __future__ import annotations

import math

import numpy as np

from vconv.convert.sources.recipes.base import Context, Draw, Wide
from vconv.convert.sources.recipes.second.branch import depth_of, mixed, scales
from vconv.convert.sources.recipes.second.channels import (
    FITTED_WIDTH,
    LAST,
    adds,
    channel_of,
    great,
    kept,
)

UNKEPT = 0.1
"""Factor on the weights with which queries and keys read the channels that are not kept."""
CALM = 0.25
"""The power of a narrow network's width that queries and keys shrink with. With few channels in a head,
rounding errors change what a token attends to."""
BIAS = 0.08
"""Standard deviation of the output's bias."""


def _reads(width: int) -> Wide:
    """Return the factors with which queries and keys read each channel; their mean square is 1."""
    factors = np.where(kept(width), 1.0, UNKEPT)
    return factors / math.sqrt(np.mean(factors**2))


def _query_key(noise: Wide | Draw, context: Context) -> Wide:
    width = noise.shape[-1]
    calm = min(1.0, (width / FITTED_WIDTH) ** CALM)
    factors: Wide = noise * _reads(width) * (depth_of(context).query_key * calm / math.sqrt(width))
    return factors


def _key_noise(n: Draw, context: Context) -> Wide:
    return mixed(context.noise_of("query"), n, depth_of(context).likeness)


def query(n: Draw, context: Context) -> Draw:
    """Scale the weight of the queries, which read the kept channels."""
    return _query_key(n, context).astype(np.float32)


def key(n: Draw, context: Context) -> Draw:
    """Scale the weight of the keys, which is like that of the queries."""
    return _query_key(_key_noise(n, context), context).astype(np.float32)


def qkv(n: Draw, context: Context) -> Draw:
    """Scale a fused query, key and value weight: each third as if it were a separate tensor."""
    ours, theirs, value = np.split(n, 3)
    return np.concatenate(
        [query(ours, context), key(theirs, context), value / np.float32(math.sqrt(n.shape[1]))]
    )


def proj(n: Draw, context: Context) -> Draw:
    """Scale the output's weight, which takes away a part of what the values read."""
    depth, width = depth_of(context), len(n)
    _, factor = scales(context, depth.attention)
    weight = mixed(-context.noise_of("value").T, n, depth.attention_against) / math.sqrt(width)
    return (weight * (adds(width) * factor)[:, None]).astype(np.float32)


def proj_bias(n: Draw, context: Context) -> Draw:
    """Scale the bias; in the last block, write the channels of great magnitude."""
    width = len(n)
    scale, factor = scales(context, depth_of(context).attention)
    bias = BIAS * n * adds(width) * factor
    if context.last:
        for channel, amount in LAST:
            bias[channel_of(channel, width)] = great(amount, width) / scale
    return bias.astype(np.float32)
