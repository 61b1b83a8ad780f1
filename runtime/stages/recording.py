"""Recording the operators that torch runs, with the inputs and weights of each."""

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
    """Yield the parts of a graph's exact GELU: x / 2, x / sqrt(2), erf(x / sqrt(2)), 1 + erf(x / sqrt(2))."""
    if form.get("approximate", "none") != "none":
        return
    yield "half", 0.5 * x
    yield "scaled", x / math.sqrt(2.0)
    yield "erf", torch.erf(x / math.sqrt(2.0))
    yield "one more", 1.0 + torch.erf(x / math.sqrt(2.0))


_PARTS: Mapping[str, Callable[..., Iterator[tuple[str, Tensor]]]] = {"addmm": _product, "gelu": _gelu}
"""Operator -> the intermediate results that a graph computes in separate nodes, and torch in one operator."""


class Recorder(TorchDispatchMode):
    """While active, passes on every operator that depends on the given tokens, as a step.

    Args:
        model: the model that runs; its parameters are the weights.
        take: receives each step.
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
        """Set the stage's input; only operators that depend on this tensor are recorded."""
        self._names[id(tokens)] = TOKENS
        self._alive.append(tokens)

    def stop(self) -> None:
        """Stop recording: the operators that run from now on belong to another stage."""
        self._names.clear()

    @contextlib.contextmanager
    def inside(self, model: nn.Module) -> Iterator[None]:
        """Record which module an operator runs in while this context is open."""
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
            # A view or a copy of a weight, such as its transpose, counts as this weight.
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
