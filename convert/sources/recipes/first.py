"""Version 1 of the recipe, kept so that the originals of older artifacts can be drawn again.

Attention logits have a standard deviation of 1 to 2.5, and pre-GELU values a mean of -1.5 and one
of 1.2 to 1.6. The residual stream has a few channels of great magnitude, as in trained networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from vconv.convert.sources.recipes.base import Context, Draw, Recipe, by_fan_in, scaled, smooth_over_grid

QUERY_KEY_GAIN = math.sqrt(2.0)
"""Gives attention logits a standard deviation of about 2, before outliers reduce the outputs of norms."""
PRE_GELU_MEAN, PRE_GELU_STD = -1.5, 1.5
FC1_BIAS_STD = 0.5
GELU_RMS = 0.3909
"""Root mean square of gelu(x) for x of mean -1.5 and standard deviation 1.5: keeps fc2 near unit variance."""
GATED_RMS = 0.4409
"""Root mean square of silu(x) y for x of mean -1.5 and standard deviation 1.5, and y of deviation 1.1."""
RESIDUAL_GAIN = 0.3
"""Mean of LayerScale; in networks without LayerScale, a factor on the residual projections."""
WIDE_ROWS, WIDE_GAIN = 4, 4.0
"""Number of hidden channels, evenly spread, with a greater range than the others, and the factor."""
OUTLIERS = ((7, 50.0), (101, -50.0), (200, 7.5))
"""Channels of the residual stream, each with the value that one block adds to it."""
QUIET_NORM = 0.2
"""Factor on the norm weights of the outlier channels."""


def _gain(context: Context) -> float:
    """Return the factor on the values that a block adds to the residual stream."""
    return 1.0 if context.layer_scale else RESIDUAL_GAIN


def _residual(gain: float) -> Callable[[Draw, Context], Draw]:
    return lambda n, context: n * np.float32(gain * _gain(context) / math.sqrt(context.fan_in))


def _qkv(n: Draw, context: Context) -> Draw:
    """Scale a fused query, key and value weight: each third as if it were a separate tensor."""
    gains = np.repeat(np.array([QUERY_KEY_GAIN, QUERY_KEY_GAIN, 1.0], np.float32), len(n) // 3)
    return n * (gains / np.float32(math.sqrt(context.fan_in)))[:, None]


def _fc1(n: Draw, context: Context) -> Draw:
    spread = math.sqrt(PRE_GELU_STD**2 - FC1_BIAS_STD**2)
    weight = n * np.float32(spread / math.sqrt(context.fan_in))
    weight[:: max(1, len(weight) // WIDE_ROWS)][:WIDE_ROWS] *= np.float32(WIDE_GAIN)
    return weight


def _gate_up(n: Draw, context: Context) -> Draw:
    """Scale a packed gate and up weight: each half as if it were a separate tensor."""
    gains = np.repeat(np.array([QUERY_KEY_GAIN, 1.0], np.float32), len(n) // 2)
    return n * (gains / np.float32(math.sqrt(context.fan_in)))[:, None]


def _gate_up_bias(n: Draw, context: Context) -> Draw:
    gate, up = np.split(n, 2)
    return np.concatenate([_fc1_bias(gate, context), up * np.float32(0.5)])


def _fc1_bias(n: Draw, _: Context) -> Draw:
    return np.float32(PRE_GELU_MEAN) + np.float32(FC1_BIAS_STD) * n


def _fc2_bias(n: Draw, context: Context) -> Draw:
    bias = n * np.float32(0.2 * _gain(context))
    if context.tensor.block == context.blocks // 3:
        for channel, amount in OUTLIERS:
            bias[channel % len(bias)] += np.float32(amount * _gain(context))
    return bias


def _layer_scale(n: Draw, _: Context) -> Draw:
    scale = np.clip(RESIDUAL_GAIN * np.exp(0.5 * n.astype(np.float64)), 0.1, 1.0)
    for channel, _amount in OUTLIERS[:2]:
        scale[channel % len(scale)] = RESIDUAL_GAIN
    return scale.astype(np.float32)


def _norm(n: Draw, _: Context) -> Draw:
    weight = np.exp(0.2 * n.astype(np.float64))
    for channel, _amount in OUTLIERS:
        weight[channel % len(weight)] *= QUIET_NORM
    return weight.astype(np.float32)


def _position(n: Draw, context: Context) -> Draw:
    smooth = smooth_over_grid(n, 0.1)
    embedding = 0.05 * n.astype(np.float64)
    embedding[0, n.shape[1] - len(smooth) :] += smooth
    return embedding.astype(np.float32)


RECIPE = Recipe(
    1,
    {
        "query": by_fan_in(QUERY_KEY_GAIN),
        "key": by_fan_in(QUERY_KEY_GAIN),
        "value": by_fan_in(),
        "qkv": _qkv,
        "qkv_bias": scaled(0.3),
        "attention_bias": scaled(0.3),
        "zero_bias": scaled(0.0),
        "proj": _residual(1.0),
        "proj_bias": lambda n, context: n * np.float32(0.2 * _gain(context)),
        "fc1": _fc1,
        "fc1_bias": _fc1_bias,
        "fc2": _residual(1.0 / GELU_RMS),
        "fc2_bias": _fc2_bias,
        "gate": by_fan_in(QUERY_KEY_GAIN),
        "gate_bias": _fc1_bias,
        "up": by_fan_in(),
        "up_bias": scaled(0.5),
        "gate_up": _gate_up,
        "gate_up_bias": _gate_up_bias,
        "down": _residual(1.0 / GATED_RMS),
        "down_bias": _fc2_bias,
        "patch_norm": _norm,
        "downsample_norm": _norm,
        "depthwise": by_fan_in(),
        "depthwise_bias": scaled(0.1),
        "downsample": by_fan_in(),
        "downsample_bias": scaled(0.1),
        "attention_scale": _layer_scale,
        "mlp_scale": _layer_scale,
        "norm": _norm,
        "norm_bias": scaled(0.1),
        "patch": by_fan_in(0.1),
        "patch_bias": scaled(0.03),
        "class_token": scaled(0.1),
        "token": scaled(0.1),
        "position": _position,
        "head": by_fan_in(),
        "head_bias": scaled(0.3),
    },
)
