"""Blocks of a model that are the same but for their weights: one of them is traced for all.

The time of a trace grows with the number of blocks. A model is therefore traced with its first block, the
next one, and its last block; :mod:`vconv.convert.graphs.passes.repeat_blocks` then repeats the second one in
the graph, with the weights of those that were left out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from vconv.convert.graphs.passes.base import Repeats

_KEPT = 3
"""The number of blocks of a shortened model: the first, the one that is repeated, and the last."""
_NUMBERED = frozenset({"layer_idx", "layer_id", "index", "idx", "block_idx"})
"""Attributes that only number the modules."""
_IDLE = ("Dropout", "DropPath")
"""The ends of the names of classes that do nothing in an evaluation, whatever their attributes are."""


@contextlib.contextmanager
def shortened(model: nn.Module, blocks: list[nn.Module]) -> Iterator[Repeats | None]:
    """Leave out the blocks of a model that are like its second one, while the context is open.

    Args:
        model: the model.
        blocks: its blocks, in order.

    Yields:
        What was left out; None if nothing was: there are few blocks, or they differ, or no list holds them.
    """
    container = next((one for one in model.modules() if _holds(one, blocks)), None)
    middle = blocks[1:-1]
    if len(blocks) <= _KEPT or container is None or len({signature(block) for block in middle}) != 1:
        yield None
        return
    (stem,) = (name for name, module in model.named_modules() if module is container)
    names = [f"{stem}.{key}." for key in container._modules]
    tensors = [[*block.state_dict()] for block in blocks]
    copies = tuple(
        {f"{names[1]}{tensor}": f"{names[number]}{tensor}" for tensor in tensors[1]}
        for number in range(2, len(blocks) - 1)
    )
    whole = dict(container._modules)
    for key in [*whole][2:-1]:
        del container._modules[key]
    try:
        preceding, following = (
            frozenset(f"{names[number]}{tensor}" for tensor in tensors[number]) for number in (0, -1)
        )
        yield Repeats(copies, preceding, following)
    finally:
        container._modules.clear()
        container._modules.update(whole)


def _holds(module: nn.Module, blocks: list[nn.Module]) -> bool:
    return isinstance(module, nn.ModuleList | nn.Sequential) and [*module] == blocks


def signature(block: nn.Module) -> str:
    """Return what a block computes, as text: its modules with their attributes, and its tensors.

    Parameters count by their shape and type, buffers that no file holds by their values, and attributes by
    their values where these are numbers, texts, or collections.
    """
    return repr([_of_module(name, module) for name, module in block.named_modules()])


def _of_module(name: str, module: nn.Module) -> tuple[Any, ...]:
    kind = type(module)
    if kind.__name__.endswith(_IDLE) and not module.training:
        return name, kind.__qualname__
    attributes = [
        (key, _of_attribute(value))
        for key, value in sorted(vars(module).items())
        if not key.startswith("_") and key not in _NUMBERED
    ]
    stored = module.state_dict(keep_vars=True)
    tensors = [
        (key, _of_tensor(tensor, key in stored))
        for key, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    ]
    return name, kind.__module__, kind.__qualname__, attributes, tensors


def _of_attribute(value: Any) -> str:
    """Return an attribute as text; of a function its name, and of any other object its class."""
    if isinstance(value, bool | int | float | str | tuple | list | dict | None | torch.dtype):
        return repr(value)
    return str(getattr(value, "__qualname__", type(value).__qualname__))


def _of_tensor(tensor: torch.Tensor, stored: bool) -> tuple[Any, ...]:
    values = () if stored or isinstance(tensor, FakeTensor) else tuple(tensor.flatten().tolist())
    return tuple(tensor.shape), str(tensor.dtype), values
