"""Sensitised synthetic weights: random, but every known fault changes the outputs measurably.

Freshly initialised weights hide faults: LayerScale near zero suppresses the output of the blocks, a missing
bias has no effect if biases are zero, and the forms of GELU hardly differ for activations near zero. The
table below draws each tensor by its role. Attention logits then have a standard deviation of 1 to 2.5,
pre-GELU values a mean of -1.5 and a standard deviation of 1.2 to 1.6, and the residual stream has a few
channels of great magnitude, as in trained networks. Synthetic weights are not trained weights, and everything
made from them is marked as synthetic.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from vconv.convert.files import safetensors_file
from vconv.convert.network import Network, TensorSpec

Draw = NDArray[np.float32]

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


@dataclass(frozen=True)
class Context:
    """The data that a rule may use in addition to the noise."""

    tensor: TensorSpec
    blocks: int
    layer_scale: bool

    @property
    def fan_in(self) -> int:
        """Number of inputs that one output sums over."""
        return math.prod(self.tensor.shape[1:])

    @property
    def gain(self) -> float:
        """Factor on the values that a block adds to the residual stream."""
        return 1.0 if self.layer_scale else RESIDUAL_GAIN


def _scaled(factor: float) -> Callable[[Draw, Context], Draw]:
    return lambda n, _: n * np.float32(factor)


def _fan_in(gain: float = 1.0) -> Callable[[Draw, Context], Draw]:
    return lambda n, context: n * np.float32(gain / math.sqrt(context.fan_in))


def _residual(gain: float) -> Callable[[Draw, Context], Draw]:
    return lambda n, context: n * np.float32(gain * context.gain / math.sqrt(context.fan_in))


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
    bias = n * np.float32(0.2 * context.gain)
    if context.tensor.block == context.blocks // 3:
        for channel, amount in OUTLIERS:
            bias[channel % len(bias)] += np.float32(amount * context.gain)
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
    """Add smooth noise of a few cosines per side on the patch grid, so that neighbours are similar."""
    tokens = context.tensor.shape[1]
    side = math.isqrt(tokens)
    waves = max(2, side // 4)
    basis = np.cos(np.pi * np.outer(np.arange(side) + 0.5, np.arange(waves)) / side)
    coarse = n[0, : waves * waves].astype(np.float64).reshape(waves, waves, -1) / waves
    smooth = np.einsum("ya,xb,abd->yxd", basis, basis, coarse).reshape(side * side, -1)
    embedding = 0.05 * n.astype(np.float64)
    embedding[0, tokens - side * side :] += 0.1 * smooth
    return embedding.astype(np.float32)


VERSION = 1
"""Version of the recipe, recorded in the manifest: it increases when a seed gives other weights."""

RECIPE: dict[str, Callable[[Draw, Context], Draw]] = {
    "query": _fan_in(QUERY_KEY_GAIN),
    "key": _fan_in(QUERY_KEY_GAIN),
    "value": _fan_in(),
    "qkv": _qkv,
    "qkv_bias": _scaled(0.3),
    "attention_bias": _scaled(0.3),
    "zero_bias": _scaled(0.0),
    "proj": _residual(1.0),
    "proj_bias": lambda n, context: n * np.float32(0.2 * context.gain),
    "fc1": _fc1,
    "fc1_bias": _fc1_bias,
    "fc2": _residual(1.0 / GELU_RMS),
    "fc2_bias": _fc2_bias,
    "gate": _fan_in(QUERY_KEY_GAIN),
    "gate_bias": _fc1_bias,
    "up": _fan_in(),
    "up_bias": _scaled(0.5),
    "gate_up": _gate_up,
    "gate_up_bias": _gate_up_bias,
    "down": _residual(1.0 / GATED_RMS),
    "down_bias": _fc2_bias,
    "patch_norm": _norm,
    "downsample_norm": _norm,
    "depthwise": _fan_in(),
    "depthwise_bias": _scaled(0.1),
    "downsample": _fan_in(),
    "downsample_bias": _scaled(0.1),
    "layer_scale": _layer_scale,
    "norm": _norm,
    "norm_bias": _scaled(0.1),
    "patch": _fan_in(0.1),
    "patch_bias": _scaled(0.03),
    "token": _scaled(0.1),
    "position": _position,
    "head": _fan_in(),
    "head_bias": _scaled(0.3),
}
"""By role: the rule. ``n`` is standard normal noise of the tensor's shape, which a rule may change."""


def draw(tensor: TensorSpec, network: Network, seed: int) -> Draw:
    """Draw one tensor from the seed, independently of all other tensors, so that tensors can be streamed.

    Args:
        tensor: the tensor to draw.
        network: the network of the tensor.
        seed: the seed of all weights, 0 or greater.

    Returns:
        float32, of the tensor's shape.
    """
    generator = np.random.Generator(np.random.PCG64([seed, zlib.crc32(tensor.key.encode())]))
    noise = generator.standard_normal(tensor.shape, dtype=np.float32)
    layer_scale = any(part.role == "layer_scale" for part in network.layout.architecture.parts.values())
    weight = RECIPE[tensor.role](noise, Context(tensor, network.blocks, layer_scale))
    return np.ascontiguousarray(weight + np.float32(0.0))


def _bytes(tensor: TensorSpec, network: Network, seed: int) -> tuple[bytes]:
    return (draw(tensor, network, seed).tobytes(),)


def planned(network: Network, seed: int) -> Iterator[safetensors_file.PlannedTensor]:
    """Yield every tensor of a network; a tensor is drawn only when it is written."""
    for tensor in network.tensors().values():
        yield safetensors_file.PlannedTensor(
            network.stored_key(tensor),
            "F32",
            tensor.shape,
            partial(_bytes, tensor, network, seed),
        )
