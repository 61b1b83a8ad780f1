"""MLPs in version 2 of the recipe."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vconv.convert.sources.recipes.base import Context, Draw, Wide, settled
from vconv.convert.sources.recipes.second import profile
from vconv.convert.sources.recipes.second.branch import depth_of, mixed, scales
from vconv.convert.sources.recipes.second.channels import (
    CLASS_CHANNEL,
    CLASS_TOKEN,
    FITTED_WIDTH,
    adds,
    channel_of,
    great,
    has_class_token,
)

SEEKERS, SLOPE, BELOW = 4, 1.0, 3.0
"""Number of hidden channels that look for the class token, their weight on its channel, minus their bias."""
SEEKER_NOISE = 0.05
"""Factor on their other weights."""
AIMED = 2.6
"""How strongly the MLP's second weight reads the direction in which the forms of GELU differ."""
BIAS, UP_BIAS = 0.5, 0.5
"""Standard deviations of the biases of the output and of the gated channels."""


@dataclass(frozen=True)
class _Hidden:
    """The hidden channels of an MLP: means and standard deviations of their values before the activation."""

    mean: Wide
    std: Wide

    def moments(self, power: int, activation: Callable[[Wide], Wide]) -> Wide:
        """Return the mean of a power of the activation of each channel, by Gauss-Hermite quadrature."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(40)
        values = activation(self.mean[:, None] + self.std[:, None] * nodes) ** power
        return settled((values * (weights / weights.sum())).sum(axis=1))


def _gelu(approximate: str) -> Callable[[Wide], Wide]:
    return lambda x: torch.nn.functional.gelu(torch.from_numpy(x), approximate=approximate).numpy()


def _silu(x: Wide) -> Wide:
    return np.asarray(x / (1 + np.exp(-x)))


def _hidden(context: Context, role: str, channels: int) -> _Hidden:
    """Return the hidden channels of the block whose first weight has this role."""
    depth = depth_of(context)
    spread = np.exp(depth.uneven * context.more_noise("range", (channels,), role).astype(np.float64))
    std = settled(depth.hidden * spread / math.sqrt(np.mean(spread**2)))
    middle = depth.middle + depth.middle_spread * context.more_noise("middle", (channels,), role)
    return _Hidden(std * middle, std)


def _seekers(channels: int) -> NDArray[np.int_]:
    """Return the hidden channels that look for the class token."""
    return (np.arange(SEEKERS) * channels) // SEEKERS + channels // (2 * SEEKERS)


def fc1(n: Draw, context: Context) -> Draw:
    """Scale the first weight, in which some hidden channels look for the class token."""
    channels, width = n.shape
    hidden = _hidden(context, "fc1", channels)
    weight = n * (hidden.std / math.sqrt(width))[:, None]
    if has_class_token(context):
        seekers = _seekers(channels)
        weight[seekers] *= SEEKER_NOISE
        weight[seekers, channel_of(CLASS_CHANNEL, width)] = SLOPE * math.sqrt(FITTED_WIDTH / width)
    return weight.astype(np.float32)


def fc1_bias(n: Draw, context: Context) -> Draw:
    """Set the means of the hidden channels."""
    bias = _hidden(context, "fc1", len(n)).mean
    if has_class_token(context):
        bias[_seekers(len(n))] = -BELOW
    return bias.astype(np.float32)


def fc2(n: Draw, context: Context) -> Draw:
    """Scale the second weight, which cancels the mean of the GELU, not that of what its forms differ by."""
    depth, (width, channels) = depth_of(context), n.shape
    hidden = _hidden(context, "fc1", channels)
    against = 0.0 if context.network.stages else depth.mlp_against
    weight = mixed(-context.noise_of("fc1").T, n, against) / math.sqrt(channels)
    mean = hidden.moments(1, _gelu("none"))
    square = np.sum(mean * mean)
    aim = settled(hidden.moments(1, _gelu("tanh")) - mean)
    aim -= np.sum(aim * mean) / square * mean
    weight -= np.outer(np.sum(weight * mean, axis=1), mean / square)
    weight += np.outer(context.more_noise("aim", (width,)), aim / math.sqrt(np.sum(aim * aim))) * (
        AIMED / math.sqrt(channels)
    )
    weight /= math.sqrt(np.mean(hidden.moments(2, _gelu("none")) - mean**2))
    return _into_stream(weight, context, depth)


def _into_stream(weight: Wide | Draw, context: Context, depth: profile.Depth) -> Draw:
    """Scale the second weight of an MLP, and let the class token's channel grow."""
    width, channels = weight.shape
    if not has_class_token(context):
        return weight.astype(np.float32)
    scale, factor = scales(context, depth.mlp)
    weight = weight * (adds(width) * factor)[:, None]
    if context.tensor.role == "fc2":
        seekers, block = _seekers(channels), context.tensor.block
        before = profile.at(block - 1, context.blocks).class_token if block else CLASS_TOKEN
        grown = great(depth.class_token - before, width)
        weight[:, seekers] = 0.0
        weight[channel_of(CLASS_CHANNEL, width), seekers] = grown / (SEEKERS * depth.found * scale)
    return weight.astype(np.float32)


def bias(n: Draw, context: Context) -> Draw:
    """Scale the bias of the output."""
    if not has_class_token(context):
        return n * np.float32(BIAS)
    _, factor = scales(context, depth_of(context).mlp)
    return (BIAS * n * adds(len(n)) * factor).astype(np.float32)


def gate(n: Draw, context: Context) -> Draw:
    """Scale the weight of a gate."""
    hidden = _hidden(context, "gate", len(n))
    return (n * (hidden.std / math.sqrt(n.shape[1]))[:, None]).astype(np.float32)


def gate_bias(n: Draw, context: Context) -> Draw:
    """Set the means of the gates."""
    return _hidden(context, "gate", len(n)).mean.astype(np.float32)


def gate_up(n: Draw, context: Context) -> Draw:
    """Scale a packed gate and up weight: each half as if it were a separate tensor."""
    gate, up = np.split(n, 2)
    hidden = _hidden(context, "gate_up", len(gate))
    root = math.sqrt(n.shape[1])
    return np.concatenate([gate * (hidden.std / root)[:, None], up / root]).astype(np.float32)


def gate_up_bias(n: Draw, context: Context) -> Draw:
    """Set a packed gate and up bias: each half as if it were a separate tensor."""
    gate, up = np.split(n, 2)
    mean = _hidden(context, "gate_up", len(gate)).mean
    return np.concatenate([mean, UP_BIAS * up]).astype(np.float32)


def down(n: Draw, context: Context) -> Draw:
    """Scale the second weight of a gated MLP."""
    channels = n.shape[1]
    weight = "gate_up" if context.has("gate_up") else "gate"
    hidden = _hidden(context, weight, channels)
    spread = math.sqrt(np.mean(hidden.moments(2, _silu)) * (1 + UP_BIAS**2))
    return _into_stream(n / (math.sqrt(channels) * spread), context, depth_of(context))
