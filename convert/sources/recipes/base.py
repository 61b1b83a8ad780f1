"""What every recipe of synthetic weights has: a rule by role, and noise that a seed and a key determine.

Freshly initialised weights hide faults: LayerScale near zero suppresses the output of the blocks, a missing
bias has no effect if biases are zero, and the forms of GELU hardly differ for activations near zero. A recipe
draws each tensor by its role, so that every known fault changes the outputs measurably. Synthetic weights are
not trained weights, and everything made from them is marked as synthetic.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from vconv.convert.files.safetensors_file import PlannedTensor
from vconv.convert.network import Network, TensorSpec

Draw = NDArray[np.float32]
Wide = NDArray[np.float64]
_SCALES = ("attention_scale", "mlp_scale")
_FUSED = ("query", "key", "value")
"""The parts of a tensor of the role ``qkv``, in order."""


@dataclass(frozen=True)
class Recipe:
    """A recipe.

    Args:
        version: its number, recorded in the manifest: another number gives other weights from the same seed.
        rules: by role, the rule. It gets standard normal noise of the tensor's shape, which it may change.
    """

    version: int
    rules: Mapping[str, Callable[[Draw, Context], Draw]]

    def draw(self, tensor: TensorSpec, network: Network, seed: int) -> Draw:
        """Draw one tensor from the seed, independently of all other tensors, so that tensors can be streamed.

        Args:
            tensor: the tensor to draw.
            network: the network of the tensor.
            seed: the seed of all weights, 0 or greater.

        Returns:
            float32, of the tensor's shape.
        """
        return self._drawn(tensor, _Seeded(network, seed))

    def planned(self, network: Network, seed: int) -> Iterator[PlannedTensor]:
        """Yield every tensor of a network; a tensor is drawn only when it is written."""
        seeded = _Seeded(network, seed)
        for tensor in seeded.tensors:
            make = partial(self._bytes, tensor, seeded)
            yield PlannedTensor(network.stored_key(tensor), "F32", tensor.shape, make)

    def _drawn(self, tensor: TensorSpec, seeded: _Seeded) -> Draw:
        weight = self.rules[tensor.role](seeded.noise(tensor), Context(tensor, seeded))
        return np.ascontiguousarray(weight + np.float32(0.0))

    def _bytes(self, tensor: TensorSpec, seeded: _Seeded) -> tuple[bytes]:
        return (self._drawn(tensor, seeded).tobytes(),)


@dataclass(frozen=True)
class _Seeded:
    """A network and the seed of its weights."""

    network: Network
    seed: int

    @cached_property
    def tensors(self) -> list[TensorSpec]:
        return list(self.network.tensors().values())

    @cached_property
    def by_place(self) -> dict[tuple[int | None, str], TensorSpec]:
        """Every tensor that is the only one of its role in its block, by block and role."""
        counts = Counter((tensor.block, tensor.role) for tensor in self.tensors)
        return {place: tensor for tensor in self.tensors if counts[place := (tensor.block, tensor.role)] == 1}

    def noise(self, tensor: TensorSpec, of: str = "", shape: tuple[int, ...] | None = None) -> Draw:
        """Return standard normal noise that the seed and the tensor's key determine; ``of`` names another."""
        stream = zlib.crc32(f"{tensor.key} {of}".encode() if of else tensor.key.encode())
        generator = np.random.Generator(np.random.PCG64([self.seed, stream]))
        return generator.standard_normal(tensor.shape if shape is None else shape, dtype=np.float32)


@dataclass(frozen=True)
class Context:
    """The data that a rule may use in addition to the noise.

    Args:
        tensor: the tensor that is drawn.
        seeded: its network, and the seed.
    """

    tensor: TensorSpec
    seeded: _Seeded

    @property
    def network(self) -> Network:
        """The network of the tensor."""
        return self.seeded.network

    @property
    def fan_in(self) -> int:
        """Number of inputs that one output sums over."""
        return math.prod(self.tensor.shape[1:])

    @property
    def blocks(self) -> int:
        """Number of blocks of the network."""
        return self.network.blocks

    @property
    def last(self) -> bool:
        """Whether the tensor is one of the last block."""
        return self.tensor.block == self.blocks - 1

    @property
    def layer_scale(self) -> bool:
        """Whether the network has LayerScale."""
        return any(part.role in _SCALES for part in self.network.layout.architecture.parts.values())

    def has(self, role: str) -> bool:
        """Whether the same block has a tensor of a role."""
        return (self.tensor.block, role) in self.seeded.by_place

    def beside(self, role: str) -> TensorSpec:
        """Return the tensor of a role in the same block."""
        return self.seeded.by_place[self.tensor.block, role]

    def noise_of(self, role: str) -> Draw:
        """Return the noise of the tensor of a role in the same block, which may be a part of a fused one."""
        if self.has(role) or role not in _FUSED:
            return self.seeded.noise(self.beside(role))
        return np.split(self.seeded.noise(self.beside("qkv")), len(_FUSED))[_FUSED.index(role)]

    def more_noise(self, name: str, shape: tuple[int, ...], role: str = "") -> Draw:
        """Return further noise, by a name, of this tensor or of the one of a role in the same block."""
        return self.seeded.noise(self.beside(role) if role else self.tensor, name, shape)


def scaled(factor: float) -> Callable[[Draw, Context], Draw]:
    """Return the rule that multiplies the noise by a factor."""
    return lambda n, _: n * np.float32(factor)


def by_fan_in(gain: float = 1.0) -> Callable[[Draw, Context], Draw]:
    """Return the rule that gives a product of inputs of unit variance this standard deviation."""
    return lambda n, context: n * np.float32(gain / math.sqrt(context.fan_in))


def settled(values: Wide) -> Wide:
    """Round values to float32: what processors compute differently in the last bits is then the same."""
    return values.astype(np.float32).astype(np.float64)


def smooth_over_grid(n: Draw, amplitude: float) -> Wide:
    """Return noise of a few cosines per side on a grid of patches, so that neighbours are similar.

    Args:
        n: noise of (1, tokens, width); the patches are the last tokens, and a square.
        amplitude: standard deviation of the result, about.

    Returns:
        float64 of (patches, width).
    """
    side = math.isqrt(n.shape[1])
    waves = min(side, max(2, side // 4))
    basis = np.cos(np.pi * np.outer(np.arange(side) + 0.5, np.arange(waves)) / side)
    coarse = n[0, : waves * waves].astype(np.float64).reshape(waves, waves, -1) / waves
    smooth: Wide = np.einsum("ya,xb,abd->yxd", basis, basis, coarse)
    return amplitude * smooth.reshape(side * side, -1)
