"""What a run of a model shows to one who watches each operator of torch."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vconv.types import CHANNELS


class Watch(TorchDispatchMode):
    """Counts exact GELUs, and follows which tensors results depend on, while it is active.

    ``cut_off`` is the side of the patches into which a convolution cut images that they do not fill; else 0.

    Args:
        watched: the tensors of interest, by name. A tensor with several names goes by the last, as it does
            in a graph of torch.
    """

    def __init__(self, watched: Mapping[str, torch.Tensor] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernels = self.spelled_out = 0
        self.random = ""
        self.cut_off = 0
        self._names = {id(tensor): name for name, tensor in (watched or {}).items()}
        self._bits = {name: 1 << place for place, name in enumerate(self._names.values())}
        self._from = {number: self._bits[name] for number, name in self._names.items()}
        self._anywhere = 0
        self._seen: list[torch.Tensor] = []  # kept, so that no other tensor gets the identity of one of them

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = func.overloadpacket.__name__
        if named == "gelu" and (kwargs or {}).get("approximate", "none") == "none":
            self.kernels += 1
        self.spelled_out += named == "erf"
        if torch.Tag.nondeterministic_seeded in func.tags and "scaled_dot_product" not in named:
            self.random = self.random or named
        if named == "convolution":
            self.cut_off = self.cut_off or _cut_off(*args[:6])
        result = func(*args, **(kwargs or {}))
        given, made = self._tensors((args, kwargs)), self._tensors(result)
        bits = functools.reduce(operator.or_, (self._from.get(id(one), 0) for one in given), 0)
        for one in made:
            self._from[id(one)] = self._from.get(id(one), 0) | bits
        if func._schema.is_mutable:  # whatever shares memory with what was changed depends on it too
            self._anywhere |= bits
        self._seen += made
        return result

    @staticmethod
    def _tensors(values: Any) -> list[torch.Tensor]:
        return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]

    def used_by(self, results: Any) -> set[str]:
        """Return the names of the tensors that results depend on."""
        found = (self._from.get(id(one), 0) for one in self._tensors(results))
        bits = functools.reduce(operator.or_, found, self._anywhere)
        return {name for name, bit in self._bits.items() if bits & bit}


def _cut_off(
    images: torch.Tensor, weight: torch.Tensor, _: Any, stride: Any, padding: Any, dilation: Any
) -> int:
    """Return the side of the patches that a convolution cuts images into if a rest is left; else 0."""
    patches = list(weight.shape[2:]) == list(stride) and not any(padding) and max(dilation) == 1
    of_images = len(images.shape) == 4 and images.shape[1] == CHANNELS
    if not (patches and of_images and max(stride) > 1):
        return 0
    rests = (side % step for side, step in zip(images.shape[2:], stride, strict=True))
    return int(stride[0]) if any(rests) else 0
