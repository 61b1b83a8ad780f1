"""Transformer blocks that compute the same as a library's with fewer kernels.

A block is built from the tensors of the architecture, whatever the library calls them. Query, key and value
are one product; queries and keys are rotated together; LayerScale is folded into the projections, in float64.
A block launches thirteen operators at most: two norms, two sums, four products, the attention, the
activation, and three for RoPE (Su et al., 2021, arXiv:2104.09864); with a gate, one more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vconv.convert.architectures.base import BLOCK, GATED_MLP, Capability
from vconv.convert.libraries.layers import find_blocks
from vconv.convert.network import Network
from vconv.convert.weights.regroup import Run, runs_of_parts

Activation = Callable[[Tensor], Tensor]
Rope = tuple[Tensor, Tensor] | Tensor
"""Cosines and sines for the patches, (patches, channels): a pair, from transformers; from timm one tensor of
twice the channels, the sines first."""
_LAYERS = ("norm1", "query", "key", "value", "proj", "norm2", "fc1", "fc2", "gate", "up", "down")
_PARTS = frozenset({"scale1", "scale2", *(f"{name}.{end}" for name in _LAYERS for end in ("weight", "bias"))})
"""The tensors that a fused block has a place for, by their names in the architecture."""


def lack(network: Network) -> str:
    """Return why the blocks of a network cannot be fused; empty if they can."""
    missing = network.lack(Capability.ROLES, Capability.BLOCKS)
    if missing or network.stages:
        return missing or "its width changes from stage to stage"
    if network.asked and any("attention" in name for name in network.asked):
        return "its attention probabilities are asked for, which one operator does not give"
    if others := sorted(_parts(runs_of_parts(network), 0).keys() - _PARTS):
        return f"its blocks also have {', '.join(others)}"
    gated = GATED_MLP in network.numbers.flags
    return "" if gated or network.known.exact_gelu else "its activation is not the exact GELU"


def fuse(model: nn.Module, network: Network, gelu: Activation = functional.gelu) -> None:
    """Replace the computation of every block of a model, in place. The weights it had are freed.

    Args:
        model: a stock model in float32, with or without patches.
        network: the network that it implements, of which :func:`lack` says nothing.
        gelu: computes the exact GELU.
    """
    runs, stored, tables = runs_of_parts(network), _by_key(model, network), Tables(network)
    for number, block in enumerate(find_blocks(model, network)):
        parts = {name: _joined(found, stored) for name, found in _parts(runs, number).items()}
        fused = FusedBlock(parts, network, tables, gelu)
        for name, _ in [*block.named_children()]:
            delattr(block, name)
        for name, _ in [*block.named_parameters(recurse=False)]:
            delattr(block, name)
        block.fused = fused
        block.forward = fused.forward


def _parts(runs: Mapping[str, list[Run]], number: int) -> dict[str, list[Run]]:
    """Return where the tensors of a block are stored, by their names without the number of the block."""
    stem = f"{BLOCK}.".replace("{i}", str(number))
    return {name.removeprefix(stem): found for name, found in runs.items() if name.startswith(stem) and found}


def _by_key(model: nn.Module, network: Network) -> dict[str, Tensor]:
    """Return the elements of a model's tensors by their stored keys, without the prefix of a backbone.

    A library may divide a stored tensor in memory, as transformers does with both halves of a SwiGLU. The
    parts follow one another there as they do in the file.
    """
    found: dict[str, list[Tensor]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        key = network.layout.disk_key(name).removeprefix(network.prefix)
        found.setdefault(key, []).append(tensor.detach().flatten())
    return {key: torch.cat(tensors) if len(tensors) > 1 else tensors[0] for key, tensors in found.items()}


def _joined(runs: list[Run], stored: Mapping[str, Tensor]) -> Tensor:
    """Return the elements of a part, one after the other."""
    return torch.cat([stored[run.key][run.start : run.start + run.count] for run in runs])


class Tables:
    """The cosines and sines of RoPE for all tokens of a forward pass, made once for all blocks."""

    def __init__(self, network: Network) -> None:
        self._prefix = 1 + network.registers
        self._given: Rope | None = None
        self._made: tuple[Tensor, Tensor] | None = None
        self._constants: tuple[Tensor, Tensor, Tensor] | None = None

    def made(self, given: Rope, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return cosines and sines, (1, N, 1, 1, channels), the sines negative in the first half.

        Tokens before the patches are not turned: their cosine is 1, their sine 0.

        Args:
            given: what a library gives to all blocks of a forward pass; timm in float32 in any precision.
            dtype: the type of queries and keys.
        """
        if self._made is None or self._given is not given:
            cosine, sine = given if isinstance(given, tuple) else given.chunk(2, dim=-1)[::-1]
            ones, zeros, signs = self._constants_like(cosine)
            still, turned = torch.cat([ones, cosine, zeros, sine]).to(dtype).chunk(2)
            self._given, self._made = given, (_by_token(still), _by_token(turned * signs.to(dtype)))
        return self._made

    def _constants_like(self, tensor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the cosines and sines of the tokens before the patches, and the signs of sines."""
        known = self._constants
        if known is None or (known[0].device, known[0].dtype) != (tensor.device, tensor.dtype):
            ones = tensor.new_ones(self._prefix, tensor.shape[-1])
            signs = tensor.new_ones(tensor.shape[-1])
            signs[: len(signs) // 2] = -1
            self._constants = known = ones, torch.zeros_like(ones), signs
        return known


def _by_token(table: Tensor) -> Tensor:
    return table[None, :, None, None]


class FusedBlock(nn.Module):
    """A pre-norm transformer block.

    Args:
        parts: its tensors by the names of the architecture, without the number of the block.
        network: the network.
        tables: makes the tables of RoPE; shared by all blocks.
        gelu: computes the exact GELU.
    """

    def __init__(
        self, parts: Mapping[str, Tensor], network: Network, tables: Tables, gelu: Activation
    ) -> None:
        super().__init__()
        numbers = network.numbers
        self._width, self._heads = numbers.width, numbers.heads
        self._gated, self._gelu, self._tables = GATED_MLP in numbers.flags, gelu, tables
        inner, last = (("gate", "up"), "down") if self._gated else (("fc1",), "fc2")
        self.norm1, self.norm2 = (_norm(parts, name, numbers.epsilon) for name in ("norm1", "norm2"))
        self.qkv = _product(*_side_by_side(parts, ("query", "key", "value"), self._width))
        self.proj = _product(*_scaled(parts, "proj", "scale1", self._width))
        self.inner = _product(*_side_by_side(parts, inner, self._width))
        self.last = _product(*_scaled(parts, last, "scale2", self._width))

    def forward(
        self,
        tokens: Tensor,
        *masks: Any,
        position_embeddings: Rope | None = None,
        rope: Rope | None = None,
        **others: Any,
    ) -> Tensor:
        """Compute a block on tokens (B, N, width), with RoPE in the form of transformers or of timm.

        Raises:
            ValueError: there is a mask.
        """
        if any(mask is not None for mask in (*masks, others.get("attention_mask"), others.get("attn_mask"))):
            raise ValueError("a fused block has no masks")
        mixed: Tensor = self._attention(self.norm1(tokens), position_embeddings if rope is None else rope)
        tokens = tokens + self.proj(mixed)
        hidden: Tensor = self.last(self._activated(self.inner(self.norm2(tokens))))
        return tokens + hidden

    def _attention(self, tokens: Tensor, rope: Rope | None) -> Tensor:
        batch, count, _ = tokens.shape
        channels = self._width // self._heads
        joined = self.qkv(tokens).view(batch, count, 3, self._heads, channels)
        turning, value = joined[:, :, :2], joined[:, :, 2]
        if rope is not None:
            cosine, sine = self._tables.made(rope, turning.dtype)
            turning = torch.addcmul(turning * cosine, torch.roll(turning, channels // 2, -1), sine)
        query, key = turning.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(query, key, value.transpose(1, 2))
        return mixed.transpose(1, 2).reshape(batch, count, self._width)

    def _activated(self, hidden: Tensor) -> Tensor:
        if not self._gated:
            return self._gelu(hidden)
        gate, up = hidden.chunk(2, dim=-1)
        return functional.silu(gate) * up


def _norm(parts: Mapping[str, Tensor], name: str, epsilon: float) -> nn.LayerNorm:
    weight, bias = parts[f"{name}.weight"], parts[f"{name}.bias"]
    made = nn.LayerNorm(len(weight), eps=epsilon, device="meta")
    made.weight, made.bias = _parameter(weight), _parameter(bias)
    return made


def _product(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    outputs, inputs = weight.shape
    made = nn.Linear(inputs, outputs, bias=bias is not None, device="meta")
    made.weight = _parameter(weight)
    if bias is not None:
        made.bias = _parameter(bias)
    return made


def _parameter(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.contiguous(), requires_grad=False)


def _side_by_side(
    parts: Mapping[str, Tensor], names: Sequence[str], width: int
) -> tuple[Tensor, Tensor | None]:
    """Return the weights and the biases of products of the same tokens as those of one product."""
    weights = [parts[f"{name}.weight"].reshape(-1, width) for name in names]
    biases = [parts.get(f"{name}.bias") for name in names]
    if all(bias is None for bias in biases):
        return torch.cat(weights), None
    pairs = zip(biases, weights, strict=True)
    return torch.cat(weights), torch.cat(
        [torch.zeros(len(rows)) if one is None else one for one, rows in pairs]
    )


def _scaled(parts: Mapping[str, Tensor], name: str, scale: str, width: int) -> tuple[Tensor, Tensor | None]:
    """Return the weight and the bias of a projection, multiplied by the LayerScale that follows it."""
    weight, bias = parts[f"{name}.weight"].reshape(width, -1), parts.get(f"{name}.bias")
    if scale not in parts:
        return weight, bias
    factors = parts[scale].double()
    folded = None if bias is None else (bias.double() * factors).float()
    return (weight.double() * factors[:, None]).float(), folded
