"""Synthetic weights of networks whose architecture is not declared, by the kind of module that owns a tensor.

A product keeps the variance of what it multiplies, so that a network of any depth stays finite. For the same
end, the statistics of a BatchNorm fit what the network gives it: see :mod:`.statistics`. Norms, scales
and biases differ from channel to channel, so that a dropped one is seen. A GELU then gets values with a
standard deviation of about 1, where its tanh form differs: LayerScales have the size of trained ones, not the
1e-5 of fresh ones.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from vconv.convert.architectures.base import Kind
from vconv.convert.files.safetensors_file import PlannedTensor
from vconv.convert.libraries import derivation, tape
from vconv.convert.libraries.module_kinds import ModuleKind
from vconv.convert.network import Network, TensorSpec
from vconv.convert.sources import statistics

Draw = NDArray[np.float32]
_SPREAD = 0.2
"""Standard deviation of the logarithm of a factor."""
_DTYPES = {torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL"}


def _scaled(factor: float) -> Callable[[Draw], Draw]:
    return lambda n: n * np.float32(factor)


def _about(middle: float) -> Callable[[Draw], Draw]:
    """Return the rule of factors above 0 around a middle."""
    return lambda n: (middle * np.exp(_SPREAD * n.astype(np.float64))).astype(np.float32)


def _product(n: Draw) -> Draw:
    return n / np.float32(math.sqrt(max(1, math.prod(n.shape[1:]))))


RULES: Mapping[str, Callable[[Draw], Draw]] = {
    ModuleKind.WEIGHT: _product,
    ModuleKind.BIAS: _scaled(0.3),
    ModuleKind.NORM_WEIGHT: _about(1.0),
    ModuleKind.NORM_BIAS: _scaled(0.1),
    ModuleKind.RUNNING_MEAN: _scaled(0.1),
    ModuleKind.RUNNING_VARIANCE: _about(1.0),
    ModuleKind.SCALE: _about(0.5),
    ModuleKind.TABLE: _scaled(0.3),
    ModuleKind.EMBEDDING: _scaled(0.2),
    ModuleKind.TEMPERATURE: _about(1.0),
}
"""By kind: the rule, which makes a tensor of standard normal noise."""


_POWERS: Mapping[str, float] = {ModuleKind.RUNNING_MEAN: 0.5, ModuleKind.RUNNING_VARIANCE: 1.0}
"""By kind of statistic: the power of the mean square of the values that it describes."""
FITTED_STATISTICS = 2
"""The first version of the recipe that fits the statistics of BatchNorms to what they normalise."""


def draw(tensor: TensorSpec, seed: int, mean_square: float = 1.0) -> Draw:
    """Draw one tensor from the seed and its key, independently of all others; float32, of its shape.

    Args:
        tensor: the tensor.
        seed: 0 or greater.
        mean_square: of a running mean or variance, the mean square of the values that it describes.
    """
    generator = np.random.Generator(np.random.PCG64([seed, zlib.crc32(tensor.key.encode())]))
    noise = generator.standard_normal(tensor.shape, dtype=np.float32)
    size = np.float32(mean_square ** _POWERS.get(tensor.role, 0.0))
    return np.ascontiguousarray(size * RULES[tensor.role](noise))


def planned(network: Network, seed: int, version: int) -> Iterator[PlannedTensor]:
    """Yield every tensor of a network; it is drawn when it is written. Its library computes whole numbers.

    Stored tensors that are one tensor of the model get the same values. Before version 2 of the recipe,
    BatchNorms got statistics near 1, whatever they normalise.
    """
    squares = _statistics(network) if version >= FITTED_STATISTICS else {}
    whole, tied = derivation.integers_and_tied(network)
    for tensor in network.tensors().values():
        if tensor.kind is Kind.INTEGER:
            value = whole[tensor.key]
            make = partial(_bytes, value.numpy())
            yield PlannedTensor(tensor.key, _DTYPES[value.dtype], tensor.shape, make)
        else:
            drawn = replace(tensor, key=tied.get(tensor.key, tensor.key))
            yield PlannedTensor(
                tensor.key, "F32", tensor.shape, partial(_drawn, drawn, seed, squares.get(drawn.key, 1.0))
            )


def _statistics(network: Network) -> dict[str, float]:
    """Return the mean square of the values that each running mean and variance describes, by stored key."""
    kinds = {key: tensor.role for key, tensor in network.tensors().items()}
    if not _POWERS.keys() & set(kinds.values()):
        return {}
    drawn = {key: RULES[kind] for key, kind in kinds.items() if kind in RULES and kind != ModuleKind.WEIGHT}
    return statistics.mean_squares(tape.record(network), drawn)


def _bytes(value: NDArray[np.generic]) -> tuple[bytes]:
    return (np.ascontiguousarray(value).tobytes(),)


def _drawn(tensor: TensorSpec, seed: int, mean_square: float) -> tuple[bytes]:
    return _bytes(draw(tensor, seed, mean_square))
