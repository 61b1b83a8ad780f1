"""Version 2 of the recipe: networks that behave as trained ones, by the statistics of trained DINOv2-small.

Plain noise is unlike a trained network in ways that matter for errors: what the tanh form of GELU costs, how
class token and patches compare, and how fast rounding errors grow. This recipe differs from noise in these:

- Patch filters are drawn in the cosine domain and even out the spectrum of photographs, whose amplitudes fall
  with the frequency. Tokens then differ in many directions, and not in their mean colour alone.
- Blocks hardly add to some channels of the residual stream, the kept ones. Queries and keys read mostly
  these, so that rounding errors that blocks add do not change what a token attends to. Positions are there.
- Keys are like queries: a token attends to those like it.
- Attention and MLPs take away a part of what they read, as trained ones do, most of all in the first blocks.
- Hidden channels differ in their range and in how often they are active. The MLP's second weight cancels the
  mean output of the GELU, as trained biases do, but not the mean difference of GELU's two forms.
- The class token has a channel of its own, in which hidden channels that find it there let it grow. The last
  attention writes two channels of great magnitude into every token.

:mod:`vconv.convert.sources.recipes.profile` has the numbers of each depth. A network without a class token or
without attention (ConvNeXt) gets what applies to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vconv.convert.sources.recipes import profile
from vconv.convert.sources.recipes.base import Context, Draw, Recipe, by_fan_in, scaled, smooth_over_grid

Wide = NDArray[np.float64]

FITTED_WIDTH = 384
"""The width of the network that the numbers were measured in. Single channels of great magnitude have the
same share of a token's norm in networks of any width."""
KEPT_OF, LEAST_KEPT = 8, 30
"""One channel in eight is kept, and more of them where there would be fewer than this number."""
ADDED = 0.05
"""Factor on what blocks add to the kept channels and to the class token's channel."""
UNKEPT = 0.1
"""Factor on the weights with which queries and keys read the other channels."""
CALM = 0.25
FREQUENCIES = 6.0
"""The greatest frequency of a patch filter, in half periods per side of the patch."""
PATCH, PATCH_BIAS = 0.21, 0.03
TOKEN = 0.03
KEPT_POSITION, POSITION = 0.13, 0.003
"""Standard deviation of the position embedding in the kept channels, and in the others."""
CLASS_CHANNEL, CLASS_TOKEN = 278, 0.75
"""The class token's channel, and its value there in the embedding."""
SEEKERS, SLOPE, BELOW = 4, 1.0, 3.0
"""Number of hidden channels that look for the class token, their weight on its channel, minus their bias."""
LAST = ((CLASS_CHANNEL, -22.0), (79, -19.0))
"""Channels of great magnitude at the end, each with the value that the last attention adds."""
CLASS_NORM, LAST_NORM = 0.75, 0.2
"""Weights of the norms for the class token's channel, and for those of great magnitude at the end."""
AIMED = 2.4
"""How strongly the MLP's second weight reads the direction in which the forms of GELU differ."""
SCALE_SPREAD, NORM_SPREAD = 0.25, 0.2
"""Standard deviations of the logarithms of LayerScale and of the norms' weights."""
PROJ_BIAS, MLP_BIAS, UP_BIAS = 0.08, 0.5, 0.5
"""Standard deviations of biases: of attention's and the MLP's outputs, and of the gated channels."""
SEEKER_NOISE = 0.05
"""Factor on the other weights of the hidden channels that look for the class token."""
STAGE_SCALE = 0.3
"""LayerScale of the blocks of stages, which were not measured."""


def _depth(context: Context) -> profile.Depth:
    block = context.tensor.block
    assert block is not None, context.tensor.key
    return profile.at(block, context.blocks)


def kept(width: int) -> NDArray[np.bool_]:
    """Return which channels of the residual stream are kept."""
    found = np.zeros(width, bool)
    step = min(KEPT_OF, max(1, width // LEAST_KEPT))
    found[step // 2 :: step] = True
    return found


def _channel(number: int, width: int) -> int:
    """Return the channel of a network of any width that stands for one of the measured network."""
    (free,) = np.nonzero(~kept(width)) if width > 1 else (np.zeros(1, int),)
    return int(free[np.searchsorted(free, number % width) % len(free)])


def _great(amount: float, width: int) -> float:
    return amount * math.sqrt(width / FITTED_WIDTH)


def _adds(width: int) -> Wide:
    """Return the factors on what a block adds to each channel of the residual stream."""
    factors = np.where(kept(width), ADDED, 1.0)
    factors[_channel(CLASS_CHANNEL, width)] = ADDED
    return factors


def _reads(width: int) -> Wide:
    """Return the factors with which queries and keys read each channel; their mean square is 1."""
    factors = np.where(kept(width), 1.0, UNKEPT)
    return factors / math.sqrt(np.mean(factors**2))


def _mixed(first: Draw, second: Draw, share: float) -> Wide:
    """Return noise that has a share of other noise in it, of the same variance."""
    return share * first.astype(np.float64) + math.sqrt(1 - share**2) * second


def _patch(n: Draw, context: Context) -> Draw:
    side = n.shape[-1]
    places = np.arange(side)
    cosines = np.cos(np.pi * np.outer(places + 0.5, places) / side) * math.sqrt(2 / side)
    cosines[:, 0] *= math.sqrt(0.5)
    radius = np.hypot(places[:, None], places)
    gain = np.where(radius <= FREQUENCIES, radius + 0.5, 0.0)
    filters = np.einsum("wcuv,yu,xv->wcyx", n * gain, cosines, cosines)
    return (filters * (PATCH / side / math.sqrt(n.shape[1] * np.count_nonzero(gain)))).astype(np.float32)


def _class_token(n: Draw, _: Context) -> Draw:
    token, width = n * np.float32(TOKEN), n.shape[-1]
    token[..., _channel(CLASS_CHANNEL, width)] = _great(CLASS_TOKEN, width)
    return token


def _position(n: Draw, _: Context) -> Draw:
    smooth = smooth_over_grid(n, 1.0)
    embedding = 0.3 * n.astype(np.float64)
    embedding[0, n.shape[1] - len(smooth) :] += smooth
    return (embedding * np.where(kept(n.shape[-1]), KEPT_POSITION, POSITION)).astype(np.float32)


def _query_key(noise: Wide | Draw, context: Context) -> Wide:
    width = noise.shape[-1]
    calm = min(1.0, (width / FITTED_WIDTH) ** CALM)
    factors: Wide = noise * _reads(width) * (_depth(context).query_key * calm / math.sqrt(width))
    return factors


def _key_noise(n: Draw, context: Context) -> Wide:
    return _mixed(context.noise_of("query"), n, _depth(context).likeness)


def _key(n: Draw, context: Context) -> Draw:
    return _query_key(_key_noise(n, context), context).astype(np.float32)


def _qkv(n: Draw, context: Context) -> Draw:
    query, key, value = np.split(n, 3)
    parts = (
        _query_key(query, context),
        _query_key(_key_noise(key, context), context),
        value / math.sqrt(n.shape[-1]),
    )
    return np.concatenate(parts).astype(np.float32)


def _scale(context: Context, scale: float) -> tuple[float, float]:
    """Return LayerScale, and the factor on the projections of a network that has none, which do its work."""
    return (scale, 1.0) if context.layer_scale else (1.0, scale)


def _proj(n: Draw, context: Context) -> Draw:
    depth, width = _depth(context), len(n)
    _, factor = _scale(context, depth.attention)
    weight = _mixed(-context.noise_of("value").T, n, depth.attention_against) / math.sqrt(width)
    return (weight * (_adds(width) * factor)[:, None]).astype(np.float32)


def _proj_bias(n: Draw, context: Context) -> Draw:
    width = len(n)
    scale, factor = _scale(context, _depth(context).attention)
    bias = PROJ_BIAS * n * _adds(width) * factor
    if context.last:
        for channel, amount in LAST:
            bias[_channel(channel, width)] = _great(amount, width) / scale
    return bias.astype(np.float32)


@dataclass(frozen=True)
class _Hidden:
    """The hidden channels of an MLP: means and standard deviations of their values before the activation."""

    mean: Wide
    std: Wide

    def moments(self, power: int, activation: Callable[[Wide], Wide]) -> Wide:
        """Return the mean of a power of the activation of each channel, by Gauss-Hermite quadrature."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(40)
        values = activation(self.mean[:, None] + self.std[:, None] * nodes) ** power
        return np.asarray(values @ (weights / weights.sum()))


def _gelu(approximate: str) -> Callable[[Wide], Wide]:
    return lambda x: np.asarray(torch.nn.functional.gelu(torch.from_numpy(x), approximate=approximate))


def _silu(x: Wide) -> Wide:
    return x / (1 + np.exp(-x))


def _hidden(context: Context, weight: str, bias: str, channels: int) -> _Hidden:
    """Return the hidden channels whose weight and bias have these roles."""
    depth = _depth(context)
    spread = np.exp(depth.uneven * context.more_noise("range", (channels,), weight).astype(np.float64))
    std = depth.hidden * spread / math.sqrt(np.mean(spread**2))
    mean = std * (depth.middle + depth.middle_spread * context.noise_of(bias)[:channels])
    return _Hidden(mean, std)


def _seekers(channels: int) -> NDArray[np.int_]:
    """Return the hidden channels that look for the class token."""
    return (np.arange(SEEKERS) * channels) // SEEKERS + channels // (2 * SEEKERS)


def _has_class_token(context: Context) -> bool:
    return any(part.role == "class_token" for part in context.network.layout.architecture.parts.values())


def _fc1(n: Draw, context: Context) -> Draw:
    channels, width = n.shape
    hidden = _hidden(context, "fc1", "fc1_bias", channels)
    weight = n * (hidden.std / math.sqrt(width))[:, None]
    if _has_class_token(context):
        seekers = _seekers(channels)
        weight[seekers] *= SEEKER_NOISE
        weight[seekers, _channel(CLASS_CHANNEL, width)] = SLOPE * math.sqrt(FITTED_WIDTH / width)
    return weight.astype(np.float32)


def _fc1_bias(n: Draw, context: Context) -> Draw:
    bias = _hidden(context, "fc1", "fc1_bias", len(n)).mean
    if _has_class_token(context):
        bias[_seekers(len(n))] = -BELOW
    return bias.astype(np.float32)


def _fc2(n: Draw, context: Context) -> Draw:
    depth, (width, channels) = _depth(context), n.shape
    hidden = _hidden(context, "fc1", "fc1_bias", channels)
    against = 0.0 if context.network.stages else depth.mlp_against
    weight = _mixed(-context.noise_of("fc1").T, n, against) / math.sqrt(channels)
    mean = hidden.moments(1, _gelu("none"))
    aim = hidden.moments(1, _gelu("tanh")) - mean
    aim -= aim @ mean / (mean @ mean) * mean
    weight -= np.outer(weight @ mean, mean / (mean @ mean))
    weight += np.outer(context.more_noise("aim", (width,)), aim / np.linalg.norm(aim)) * (
        AIMED / math.sqrt(channels)
    )
    weight /= math.sqrt(np.mean(hidden.moments(2, _gelu("none")) - mean**2))
    return _into_stream(weight, context, depth)


def _into_stream(weight: Wide, context: Context, depth: profile.Depth) -> Draw:
    """Scale the second weight of an MLP, and let the class token's channel grow."""
    width, channels = weight.shape
    if not _has_class_token(context):
        return weight.astype(np.float32)
    scale, factor = _scale(context, depth.mlp)
    weight *= (_adds(width) * factor)[:, None]
    if context.tensor.role == "fc2":
        seekers, block = _seekers(channels), context.tensor.block
        before = profile.at(block - 1, context.blocks).class_token if block else CLASS_TOKEN
        grown = _great(depth.class_token - before, width)
        weight[:, seekers] = 0.0
        weight[_channel(CLASS_CHANNEL, width), seekers] = grown / (SEEKERS * depth.found * scale)
    return weight.astype(np.float32)


def _mlp_bias(n: Draw, context: Context) -> Draw:
    if not _has_class_token(context):
        return n * np.float32(MLP_BIAS)
    _, factor = _scale(context, _depth(context).mlp)
    return (MLP_BIAS * n * _adds(len(n)) * factor).astype(np.float32)


def _gate(n: Draw, context: Context) -> Draw:
    hidden = _hidden(context, "gate", "gate_bias", len(n))
    return (n * (hidden.std / math.sqrt(n.shape[1]))[:, None]).astype(np.float32)


def _gate_bias(n: Draw, context: Context) -> Draw:
    return _hidden(context, "gate", "gate_bias", len(n)).mean.astype(np.float32)


def _gate_up(n: Draw, context: Context) -> Draw:
    gate, up = np.split(n, 2)
    hidden = _hidden(context, "gate_up", "gate_up_bias", len(gate))
    root = math.sqrt(n.shape[1])
    return np.concatenate([gate * (hidden.std / root)[:, None], up / root]).astype(np.float32)


def _gate_up_bias(n: Draw, context: Context) -> Draw:
    gate, up = np.split(n, 2)
    mean = _hidden(context, "gate_up", "gate_up_bias", len(gate)).mean
    return np.concatenate([mean, UP_BIAS * up]).astype(np.float32)


def _down(n: Draw, context: Context) -> Draw:
    channels = n.shape[1]
    packed = context.has("gate_up")
    roles = ("gate_up", "gate_up_bias") if packed else ("gate", "gate_bias")
    hidden = _hidden(context, *roles, channels)
    spread = math.sqrt(np.mean(hidden.moments(2, _silu)) * (1 + UP_BIAS**2))
    return _into_stream(n / (math.sqrt(channels) * spread), context, _depth(context))


def _layer_scale(n: Draw, context: Context, middle: float) -> Draw:
    scale = middle * np.exp(SCALE_SPREAD * n.astype(np.float64))
    for channel in {CLASS_CHANNEL, *dict(LAST)}:
        scale[_channel(channel, len(scale))] = middle
    return scale.astype(np.float32)


def _attention_scale(n: Draw, context: Context) -> Draw:
    return _layer_scale(n, context, _depth(context).attention)


def _mlp_scale(n: Draw, context: Context) -> Draw:
    return _layer_scale(n, context, STAGE_SCALE if context.network.stages else _depth(context).mlp)


def _norm(n: Draw, context: Context) -> Draw:
    weight, width = np.exp(NORM_SPREAD * n.astype(np.float64)), len(n)
    if not _has_class_token(context):
        return weight.astype(np.float32)
    weight[_channel(CLASS_CHANNEL, width)] = CLASS_NORM
    if context.tensor.block is None or context.last:
        for channel, _ in LAST:
            weight[_channel(channel, width)] = LAST_NORM
    return weight.astype(np.float32)


RECIPE = Recipe(
    2,
    {
        "query": lambda n, context: _query_key(n, context).astype(np.float32),
        "key": _key,
        "value": by_fan_in(),
        "qkv": _qkv,
        "qkv_bias": scaled(0.3),
        "attention_bias": scaled(0.3),
        "zero_bias": scaled(0.0),
        "proj": _proj,
        "proj_bias": _proj_bias,
        "fc1": _fc1,
        "fc1_bias": _fc1_bias,
        "fc2": _fc2,
        "fc2_bias": _mlp_bias,
        "gate": _gate,
        "gate_bias": _gate_bias,
        "up": by_fan_in(),
        "up_bias": scaled(UP_BIAS),
        "gate_up": _gate_up,
        "gate_up_bias": _gate_up_bias,
        "down": _down,
        "down_bias": _mlp_bias,
        "patch_norm": _norm,
        "downsample_norm": _norm,
        "depthwise": by_fan_in(),
        "depthwise_bias": scaled(0.1),
        "downsample": by_fan_in(),
        "downsample_bias": scaled(0.1),
        "attention_scale": _attention_scale,
        "mlp_scale": _mlp_scale,
        "norm": _norm,
        "norm_bias": scaled(0.1),
        "patch": _patch,
        "patch_bias": scaled(PATCH_BIAS),
        "class_token": _class_token,
        "token": scaled(TOKEN),
        "position": _position,
        "head": by_fan_in(),
        "head_bias": scaled(0.3),
    },
)
