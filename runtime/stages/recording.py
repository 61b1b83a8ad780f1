"""Recording the operators that torch runs, with what each works on."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from vconv.runtime.stages.base import TOKENS, Step
from vconv.types import Array


def as_array(tensor: Tensor) -> Array:
    """Copy a tensor to the CPU, as float32."""
    array: Array = tensor.detach().to("cpu", torch.float32, copy=True).contiguous().numpy()
    return array


def _product(bias: Tensor, left: Tensor, right: Tensor, **scales: Any) -> Iterator[tuple[str, Tensor]]:
    yield "product", left @ right


def _gelu(x: Tensor, **form: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield what a graph's GELU is made of: x / 2, x / sqrt(2), erf(x / sqrt(2)), 1 + erf(x / sqrt(2))."""
    if form.get("approximate", "none") != "none":
        return
    yield "half", 0.5 * x
    yield "scaled", x / math.sqrt(2.0)
    yield "erf", torch.erf(x / math.sqrt(2.0))
    yield "one more", 1.0 + torch.erf(x / math.sqrt(2.0))


_PARTS: Mapping[str, Callable[..., Iterator[tuple[str, Tensor]]]] = {"addmm": _product, "gelu": _gelu}
"""By operator: what a graph spells out and torch does at one stroke."""


class Recorder(TorchDispatchMode):
    """While it is on, hands over every operator that works on given tokens, as a step.

    Args:
        model: what is run; its parameters are the weights.
        take: takes a step.
    """

    def __init__(self, model: nn.Module, take: Callable[[Step], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._take = take
        self._weights = {id(parameter): name for name, parameter in model.named_parameters()}
        self._names: dict[int, str] = {}
        self._alive: list[Tensor] = []
        self._modules: list[str] = []
        self._count = 0

    def start(self, tokens: Tensor) -> None:
        """Say which tensor is given: what does not come from it is not recorded."""
        self._names[id(tokens)] = TOKENS
        self._alive.append(tokens)

    def stop(self) -> None:
        """Record no more: what runs from now on is another stage's."""
        self._names.clear()

    @contextlib.contextmanager
    def inside(self, model: nn.Module) -> Iterator[None]:
        """Know in which module an operator runs, while open."""
        with contextlib.ExitStack() as watched:
            for name, module in model.named_modules():
                watched.callback(module.register_forward_pre_hook(self._entering(name)).remove)
                watched.callback(module.register_forward_hook(self._leave, always_call=True).remove)
            yield

    def _entering(self, name: str) -> Callable[[nn.Module, Any], None]:
        return lambda module, given: self._modules.append(name)

    def _leave(self, module: nn.Module, given: Any, result: Any) -> None:
        self._modules.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        inputs = tuple(self._names[id(tensor)] for tensor in tensors if id(tensor) in self._names)
        weights = tuple(self._weights[id(tensor)] for tensor in tensors if id(tensor) in self._weights)
        given = [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
        self._alive += given
        operator = func.overloadpacket.__name__
        if inputs:
            for part, value in _PARTS.get(operator, _none)(*args, **(kwargs or {})):
                self._hand_over(f"{operator} ({part})", inputs, weights, value)
            for value in given:
                if value.is_floating_point():
                    self._names[id(value)] = self._hand_over(operator, inputs, weights, value)
        elif weights:
            # A view or a copy of a weight, such as its transpose, stands for it.
            self._weights |= {id(value): weights[0] for value in given}
        return result

    def _hand_over(
        self, operator: str, inputs: tuple[str, ...], weights: tuple[str, ...], value: Tensor
    ) -> str:
        name = f"{operator} {self._count}"
        self._count += 1
        node = self._modules[-1] if self._modules else ""
        self._take(Step(name, operator, node, inputs, weights, as_array(value)))
        return name


def _none(*args: Any, **kwargs: Any) -> Iterator[tuple[str, Tensor]]:
    return iter(())
