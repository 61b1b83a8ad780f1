"""What single blocks of a stock model give: read with hooks, without a change of the model's computation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

from vconv.convert.architectures.base import FINAL_NORM
from vconv.convert.architectures.layer_outputs import Grid, layers_of, levels_of
from vconv.convert.libraries.table import library_of
from vconv.convert.network import Network


def find_blocks(model: nn.Module, network: Network) -> list[nn.Module]:
    """Return a model's transformer blocks, in order; or its stages, if its width changes.

    Raises:
        RuntimeError: the model has no list with as many modules as the network has blocks.
    """
    levels = levels_of(network)
    count = levels.count(network)
    lists = [
        module
        for module in model.modules()
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and len(module) == count
    ]
    if not lists:
        raise RuntimeError(f"{type(model).__name__} has no list of {count} {levels.name}s")
    return list(max(lists, key=lambda blocks: sum(parameter.numel() for parameter in blocks.parameters())))


def find_final_norm(model: nn.Module, network: Network) -> nn.Module:
    """Return the norm that a model applies to the tokens after its last block.

    Raises:
        RuntimeError: the model has no such norm.
    """
    stored = {rule.stored[0] for rule in network.layout.rules if rule.parts == (f"{FINAL_NORM}.weight",)}
    for name, _ in model.named_parameters():
        if network.layout.disk_key(name.removeprefix(network.prefix)) in stored:
            return model.get_submodule(name.rpartition(".")[0])
    raise RuntimeError(f"{type(model).__name__} has no final norm")


@dataclass(frozen=True)
class Seen:
    """What blocks gave while a model ran.

    Args:
        tokens: the tokens (B, N, D) after blocks, by the block's number; those before the first under 0.
        attention: the attention probabilities (B, heads, N, N) of blocks, by the block's number.
    """

    tokens: dict[int, Tensor] = field(default_factory=dict)
    attention: dict[int, Tensor] = field(default_factory=dict)

    def update(self, other: Seen) -> None:
        """Take over what another run gave."""
        self.tokens.update(other.tokens)
        self.attention.update(other.attention)


class LayerReader:
    """Reads the outputs of single blocks while a stock model runs.

    Args:
        model: a stock model. If attention is asked for, its library computes that of these blocks, or of
            all, with a softmax from now on, and no longer inside of one fused operator.
        network: the network that it implements.
    """

    def __init__(self, model: nn.Module, network: Network) -> None:
        self._network, self._layers = network, layers_of(network)
        self._blocks = find_blocks(model, network)
        self._norm = find_final_norm(model, network) if any(one.kind.normed for one in self._layers) else None
        numbers = [one.block for one in self._layers if one.kind.cut is None]
        blocks = [self._blocks[number - 1] for number in numbers]
        expose = library_of(network).expose_attention
        self._attention = dict(zip(numbers, expose(model, blocks), strict=True)) if numbers else {}

    @contextlib.contextmanager
    def reading(self) -> Iterator[Seen]:
        """Read while the model, or a block of it, runs."""
        seen = Seen()
        with contextlib.ExitStack() as hooks:
            for number in {one.block for one in self._layers if one.kind.cut}:
                if number:
                    hook = partial(_keep, seen.tokens, number)
                    handle = self._blocks[number - 1].register_forward_hook(hook)
                else:
                    handle = self._blocks[0].register_forward_pre_hook(partial(_keep_input, seen.tokens))
                hooks.callback(handle.remove)
            for number, module in self._attention.items():
                handle = module.register_forward_hook(partial(_keep_last, seen.attention, number))
                hooks.callback(handle.remove)
            yield seen

    def named(self, pixel_values: Tensor, seen: Seen) -> dict[str, Tensor]:
        """Return the outputs by name, from what the blocks gave for images (B, 3, H, W)."""
        side = self._network.numbers.patch
        grid = Grid(pixel_values.shape[2] // side, pixel_values.shape[3] // side)
        normed = {
            number: self._norm(seen.tokens[number])
            for number in dict.fromkeys(one.block for one in self._layers if one.kind.normed)
            if self._norm
        }
        found = {}
        for layer in self._layers:
            if layer.kind.cut is None:
                found[layer.name] = seen.attention[layer.block]
                continue
            whole = normed if layer.kind.normed else seen.tokens
            found[layer.name] = layer.kind.cut(whole[layer.block], self._network, grid)
        return found


def _keep(found: dict[int, Tensor], number: int, module: nn.Module, given: Any, result: Any) -> None:
    found[number] = result[0] if isinstance(result, tuple) else result


def _keep_input(found: dict[int, Tensor], module: nn.Module, given: Any) -> None:
    found[0] = given[0]


def _keep_last(found: dict[int, Tensor], number: int, module: nn.Module, given: Any, result: Any) -> None:
    found[number] = result[-1] if isinstance(result, tuple) else result
