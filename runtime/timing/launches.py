"""How many kernels one forward pass launches: the limit of eager inference on an NPU at small batches.

On every device, this module counts the operators that reach the device's kernels and compute. Under
``torch.no_grad``, torch splits composed operators, such as ``linear``, as on a device. An operator launches
nothing if it returns no tensor, returns a view of its input, or allocates memory without filling it. A device
may launch several kernels for one operator. On CUDA, torch's profiler counts the kernels themselves too.
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
"""What a total counts."""
_UNFILLED = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided")
"""Operators that allocate memory without filling it. Schemas do not show this difference."""
_COPIES = ("Memcpy", "Memset")
"""Prefixes of the profiler's events that are not kernels: copies and fills by the device's copy engine."""


@dataclass(frozen=True)
class Launches:
    """The launches of one forward pass.

    Args:
        operators: operator that computes -> how often it runs, the most frequent first.
        total: the number of kernels if they can be counted on the device, else of operators.
        how: what the total counts: :data:`OPERATORS` or :data:`KERNELS`.
    """

    operators: Mapping[str, int]
    total: int
    how: str


class _Counting(TorchDispatchMode):
    """Counts the operators that compute, by name, while active."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if _computes(func, (args, kwargs), result):
            self.operators[func.overloadpacket.__name__] += 1
        return result


def _computes(func: Any, given: Any, result: Any) -> bool:
    """Return whether an operator computes: it fills new memory, or memory that it was given."""
    if func.overloadpacket.__name__ in _UNFILLED or torch.Tag.inplace_view in func.tags:
        return False
    if func._schema.is_mutable:
        return True
    before = {_memory(tensor) for tensor in _tensors(given)}
    return any(_memory(tensor) not in before for tensor in _tensors(result))


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def _memory(tensor: Tensor) -> int:
    """Return an identifier of a tensor's memory, also on a device without data."""
    memory: int = tensor.untyped_storage()._cdata
    return memory


def count(forward: Callable[[], object], device: Device, ran: bool = False) -> Launches:
    """Count the launches of one forward pass, after a first pass that fills the model's caches.

    Args:
        forward: runs the forward pass; it must not turn on inference mode, which does not split composed
            operators.
        device: the device that it runs on.
        ran: whether the model has run on images of this shape, so that its caches are full.
    """
    if not ran:
        with torch.no_grad():
            forward()
    with torch.no_grad(), _Counting() as counting:
        forward()
    operators = dict(counting.operators.most_common())
    kernels = _kernels(forward, device) if device.kind == "cuda" else 0
    # If a driver does not allow profiling of a GPU, the profile is empty: report operators.
    if kernels:
        return Launches(operators, kernels, KERNELS)
    return Launches(operators, counting.operators.total(), OPERATORS)


def _kernels(forward: Callable[[], object], device: Device) -> int:
    """Count the kernels that a forward pass runs on a GPU, from torch.profiler's device events."""
    with (
        torch.no_grad(),
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile,
    ):
        forward()
        device.synchronize()
    return count_kernels(profile.events())


def count_kernels(events: Iterable[Any]) -> int:
    """Count the events of a profile that are GPU kernels."""
    names = [event.name for event in events if event.device_type.name == "CUDA"]
    return sum(not name.startswith(_COPIES) for name in names)
