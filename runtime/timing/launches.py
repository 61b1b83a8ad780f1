"""How many kernels one forward pass launches: what bounds eager inference on an NPU at small batches.

Everywhere, operators are counted: those that reach the device's own kernels and compute. Under
``torch.no_grad`` composed ones, such as ``linear``, are taken apart as they are on a device. What gives no
tensor, looks at its input's memory in another way, or asks for memory and leaves it unfilled, launches
nothing. A device may take several kernels for one operator. On CUDA the kernels themselves are counted too,
by torch's profiler.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from vconv.runtime.devices.base import Device

OPERATORS, KERNELS = "operators", "kernels"
"""What a total is of."""
_UNFILLED = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided")
"""Operators that ask for memory and leave it as it is: no schema tells them from those that fill it."""
_COPIES = ("Memcpy", "Memset")
"""How the profiler's events begin that are no kernels: copies and fills by the device's copy engine."""


@dataclass(frozen=True)
class Launches:
    """What one forward pass launches.

    Args:
        operators: how often each operator runs that computes, by name, the most frequent first.
        total: kernels where the device lets them be counted, else operators.
        how: which of them: :data:`OPERATORS` or :data:`KERNELS`.
    """

    operators: Mapping[str, int]
    total: int
    how: str


class _Counting(TorchDispatchMode):
    """Counts the operators that compute, by name, while it is on."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if _computes(func, (args, kwargs), result):
            self.operators[func.overloadpacket.__name__] += 1
        return result


def _computes(func: Any, given: Any, result: Any) -> bool:
    """Tell whether an operator computes: it fills memory that it was given, or that is new."""
    if func.overloadpacket.__name__ in _UNFILLED or torch.Tag.inplace_view in func.tags:
        return False
    if func._schema.is_mutable:
        return True
    before = {_memory(tensor) for tensor in _tensors(given)}
    return any(_memory(tensor) not in before for tensor in _tensors(result))


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def _memory(tensor: Tensor) -> int:
    """Return what tells a tensor's memory from any other's, on a device without data too."""
    memory: int = tensor.untyped_storage()._cdata
    return memory


def count(forward: Callable[[], object], device: Device) -> Launches:
    """Count what one forward pass launches, once an earlier one has left what a model keeps for the next.

    Args:
        forward: runs it; it must not turn inference mode on, which keeps composed operators whole.
        device: where it runs.
    """
    with torch.no_grad():
        forward()
    with torch.no_grad(), _Counting() as counting:
        forward()
    operators = dict(counting.operators.most_common())
    kernels = _kernels(forward, device) if device.kind == "cuda" else 0
    # Where a driver does not let a GPU be profiled, the profile is empty and says nothing.
    if kernels:
        return Launches(operators, kernels, KERNELS)
    return Launches(operators, counting.operators.total(), OPERATORS)


def _kernels(forward: Callable[[], object], device: Device) -> int:
    """Count the kernels that a forward pass runs on a GPU (torch.profiler's events of the device)."""
    with (
        torch.no_grad(),
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile,
    ):
        forward()
        device.synchronize()
    return count_kernels(profile.events())


def count_kernels(events: Iterable[Any]) -> int:
    """Count the events of a profile that are kernels of a GPU."""
    names = [event.name for event in events if event.device_type.name == "CUDA"]
    return sum(not name.startswith(_COPIES) for name in names)
