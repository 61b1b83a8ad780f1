"""The mean square of what each BatchNorm of a network gets from drawn weights, estimated without images.

A BatchNorm applies the mean and the variance that it stores, whatever it gets. If they do not fit the
network, each residual branch adds values as large as the sum of all before it. After 30 branches the values
are a thousand times too large, a softmax has a single 1, and float32 is not precise enough.

So a few thousand values stand for each tensor, from the images on, and go through the operators of the
network: a product with drawn weights makes them normal and keeps their mean square, and a function of single
elements is applied to them as it is.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from vconv.convert.libraries.tape import Step, Tape

Rule = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Makes a tensor of standard normal noise."""
_COUNT = 4096
_IN_A_WINDOW = 3
"""How many values of a window of a max pooling are independent: neighbours are alike."""
_BIAS: Mapping[str, int | None] = {"convolution": 2, "addmm": 0, "baddbmm": 0, "mm": None, "bmm": None}
"""By product: the place of its bias among the arguments."""
_WEIGHT: Mapping[str, int] = {"native_layer_norm": 2, "native_group_norm": 1, "_fused_rms_norm": 2}
"""By norm: the place of its weight among the arguments; the bias follows."""
_DIVISOR: Mapping[str, int] = {"div": 1, "reciprocal": 0, "rsqrt": 0}
"""By operator: the argument that it divides by. A divisor is near no 0 in a network."""
_SUMS = {"mean", "sum", "var", "linalg_vector_norm"}
_PLACES: Mapping[int, tuple[list[int], ...]] = {3: ([1],), 4: ([1, 2], [2, 3])}
"""By number of axes: those of the places in an image. Values of one channel are alike at all places."""
_NO_SCALE = {"_softmax", "_safe_softmax"}


def mean_squares(tape: Tape, rules: Mapping[str, Rule]) -> dict[str, float]:
    """Estimate the mean square of the values that running means and variances describe, by stored key.

    It is rounded to a power of 2, so that small differences of the estimate seldom show, such as those of
    libraries that compute the same in another way.

    Args:
        tape: the operators of the network.
        rules: how tensors are drawn, by stored key; without the weights of products.
    """
    values = _Values(tape, rules)
    for step in tape.steps:
        values.follow(step)
    return {key: 2.0 ** round(math.log2(square)) for key, square in values.normalised.items()}


class _Values:
    """The values that stand for each tensor. A weight of a product, or a softmax, has none."""

    def __init__(self, tape: Tape, rules: Mapping[str, Rule]) -> None:
        self.normalised: dict[str, float] = {}
        self._streams: Counter[str] = Counter()
        self._keys = {id(tensor): key for key, tensor in reversed(tape.tensors)}
        self._of = {
            number: self._drawn(rules[key], key) for number, key in self._keys.items() if key in rules
        }
        self._of[id(tape.images)] = self._drawn(lambda noise: noise, "images")

    def follow(self, step: Step) -> None:
        """Work out the values of the results of an operator."""
        values = self._result(step.operator.overloadpacket.__name__.rstrip("_"), step)
        usable = values is not None and 0 < _mean_square(values) < math.inf
        for result in step.results:
            if values is not None and usable and result.is_floating_point():
                self._of[id(result)] = values
            else:
                self._of.pop(id(result), None)

    def _drawn(self, rule: Rule, stream: str) -> Tensor:
        """Draw values from a stream of noise, which gives others each time."""
        seed = [zlib.crc32(stream.encode()), self._streams[stream]]
        self._streams[stream] += 1
        noise = np.random.Generator(np.random.PCG64(seed)).standard_normal(_COUNT, dtype=np.float32)
        return torch.from_numpy(rule(noise)).double()

    def _known(self, given: Any) -> list[Tensor]:
        return [self._of[id(leaf)] for leaf in tree_leaves(given) if id(leaf) in self._of]

    def _greatest(self, given: Any) -> Tensor | None:
        return max(self._known(given), key=_mean_square, default=None)

    def _result(self, name: str, step: Step) -> Tensor | None:
        known = self._known(step.given)
        if not known or name in _NO_SCALE:
            return None
        if "batch_norm" in name:
            return self._batch_norm(*step.given[:5])
        if name in _BIAS:
            return self._product(step.given, _BIAS[name])
        if name in _WEIGHT:
            scale, shift = ([*step.given, None][_WEIGHT[name] + place] for place in (0, 1))
            given = known[0] - known[0].mean()
            return self._scaled(given / _mean_square(given) ** 0.5, scale, shift)
        if name in ("cat", "stack"):
            return torch.cat(known)[:: len(known)]
        if name in _SUMS:
            return self._reduced(name, step, known[0])
        if name.startswith("max_pool"):
            return torch.stack([known[0].roll(place) for place in range(_IN_A_WINDOW)]).amax(0)
        tensors = [leaf for leaf in tree_leaves(step.given) if isinstance(leaf, Tensor)]
        if torch.Tag.pointwise in step.operator.tags and len(known) == len(tensors):
            return self._pointwise(name, step)
        return self._greatest(step.given)

    def _batch_norm(self, given: Any, weight: Any, bias: Any, mean: Any, variance: Any) -> Tensor | None:
        """Note what it gets, and apply it as if its statistics had been drawn for that."""
        values = self._of.get(id(given))
        if values is None:
            return None
        square = _mean_square(values)
        values = values / square**0.5
        if {id(mean), id(variance)} <= self._keys.keys():
            for statistic in (mean, variance):
                self.normalised.setdefault(self._keys[id(statistic)], square)
            values = (values - self._of[id(mean)]) / self._of[id(variance)] ** 0.5
        return self._scaled(values, weight, bias)

    def _scaled(self, values: Tensor, scale: Any, shift: Any) -> Tensor:
        scaled: Tensor = values * self._of.get(id(scale), 1.0) + self._of.get(id(shift), 0.0)
        return scaled

    def _product(self, given: Sequence[Any], bias: int | None) -> Tensor | None:
        factors = [one for place, one in enumerate(given) if place != bias]
        greatest = self._greatest(factors)
        if greatest is None:
            return None
        size = np.float32(_mean_square(greatest) ** 0.5)
        key = next((self._keys[id(one)] for one in factors if id(one) in self._keys), "product")
        made = self._drawn(lambda noise: noise * size, key)
        return self._scaled(made, None, None if bias is None else given[bias])

    def _reduced(self, name: str, step: Step, values: Tensor) -> Tensor:
        """Reduce axes: values are independent of each other, unless they are of the places in an image."""
        given, made = step.given[0], step.results[0]
        count = given.numel() / made.numel()
        if name == "var":
            return values.var().expand(_COUNT)
        if name == "linalg_vector_norm":
            return torch.full((_COUNT,), (count * _mean_square(values)) ** 0.5, dtype=values.dtype)
        axes = [axis % given.ndim for axis in (step.given[1] or [])] if step.given[1:] else []
        middle = values.mean()
        if sorted(axes) not in _PLACES.get(given.ndim, ()):
            spread = np.float32((_mean_square(values - middle) / count) ** 0.5)
            values = middle + self._drawn(lambda noise: noise * spread, name)
        return values if name == "mean" else count * values

    def _pointwise(self, name: str, step: Step) -> Tensor | None:
        given = [tree_map(lambda leaf: self._of.get(id(leaf), leaf), one) for one in step.given]
        place = _DIVISOR.get(name)
        if place is not None and isinstance(given[place], Tensor):
            given[place] = given[place].abs().mean().expand(_COUNT)
        result = step.operator(
            *(one.clone() if isinstance(one, Tensor) else one for one in given), **step.options
        )
        usable = result.is_floating_point() and bool(result.isfinite().all())
        return result if usable else self._greatest(step.given)


def _mean_square(values: Tensor) -> float:
    return float(values.square().mean())
