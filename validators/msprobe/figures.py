"""The figures of msprobe's table for two tensors, in float64.

The formulas are those of ``msaccucmp/algorithm_manager/builtin_algorithm/``, one file a figure. msprobe
computes all but the standard deviation in float32, from values cast to float32, and adds up in float32; that
is the only difference, and it shows where many values are added up, in the accumulated relative error most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vconv.types import Array

EPSILON = float(np.finfo(float).eps)
"""Absolute values up to this one count as zero."""
_FLOOR = float(np.finfo(np.float32).eps)
"""The least value of a normalised tensor, whose logarithm is taken."""
_BLOCK = 2**17
"""How many elements are read at once: what is computed from them stays in a processor's cache."""
SPREAD, _LEAST_DEVIATION = "StandardDeviation", 0.001
COSINE, RELATIVE_L2 = "CosineSimilarity", "RelativeEuclideanDistance"
KL_DIVERGENCE, RMSE, MEAN_RELATIVE = "KullbackLeiblerDivergence", "RootMeanSquareError", "MeanRelativeError"
ZEROS = "all values of one of the two tensors are zero"
SCALAR = "This tensor is scalar."
"""msprobe's words in CompareFailReason of a tensor with one value."""


@dataclass(frozen=True)
class _Sums:
    """What the figures of a target x and a golden y need, in float64. The tensors are read twice, in blocks.

    Args:
        size: the number of elements.
        norms: of x and y.
        dot: the sum of their products.
        apart: the sum of their absolute differences, and the greatest.
        squares: the sum of their squared differences.
        relative: the sum of the relative errors, and the greatest; 0 where the golden value counts as zero.
        divergence: the Kullback-Leibler divergence of the two as distributions.
        spread: the means and the standard deviations.
        finite: whether every value of x is finite, or that of y at its place is not either.
    """

    size: int
    norms: tuple[float, float]
    dot: float
    apart: tuple[float, float]
    squares: float
    relative: tuple[float, float]
    divergence: float
    spread: tuple[tuple[float, float], tuple[float, float]]
    finite: bool

    @classmethod
    def of(cls, x: Array, y: Array) -> _Sums:
        """Read two flat tensors of as many elements, which are not empty."""
        first = [_first(*block) for block in _blocks(x, y)]
        xx, yy, dot, sum_apart, squares, sum_relative, sum_x, sum_y = _added(one[0] for one in first)
        extremes = np.max([one[1] for one in first], axis=0).tolist()
        most_apart, most_relative, most_x, most_y, least_x, least_y = extremes
        means = sum_x / x.size, sum_y / x.size
        ranges = (-least_x, most_x), (-least_y, most_y)
        second = (_second(*block, ranges, means) for block in _blocks(x, y))
        logarithms, total_x, total_y, deviation_x, deviation_y = _added(second)
        return cls(
            size=x.size,
            norms=(xx**0.5, yy**0.5),
            dot=dot,
            apart=(sum_apart, most_apart),
            squares=squares,
            relative=(sum_relative, most_relative),
            # Each distribution is divided by its sum: that is a factor, and the logarithm of a factor.
            divergence=logarithms / total_x + float(np.log(total_y / total_x)),
            spread=(
                (means[0], (deviation_x / x.size) ** 0.5),
                (means[1], (deviation_y / x.size) ** 0.5),
            ),
            finite=all(one[2] for one in first),
        )


def _blocks(x: Array, y: Array) -> Iterator[tuple[Array, Array]]:
    for start in range(0, x.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        yield x[part].astype(np.float64), y[part].astype(np.float64)


def _added(rows: Iterable[Sequence[float]]) -> list[float]:
    found: list[float] = np.sum(list(rows), axis=0).tolist()
    return found


def _first(x: Array, y: Array) -> tuple[list[float], list[float], bool]:
    """Return the sums, the greatest values, and whether no value of the target alone is not finite."""
    apart, counted = np.abs(x - y), np.abs(y) > EPSILON
    relative = np.abs(np.divide(x, y, out=np.ones_like(x), where=counted) - 1)
    products = [np.vdot(x, x), np.vdot(y, y), np.vdot(x, y)]
    sums = [*products, apart.sum(), np.vdot(apart, apart), relative.sum(), x.sum(), y.sum()]
    extremes = [apart.max(), relative.max(), x.max(), y.max(), (-x).max(), (-y).max()]
    return sums, extremes, bool((np.isfinite(x) | ~np.isfinite(y)).all())


def _second(
    x: Array, y: Array, ranges: tuple[tuple[float, float], tuple[float, float]], means: tuple[float, float]
) -> list[float]:
    """Return the sums that need the range and the mean of each whole tensor."""
    p, q = (_scaled(one, *bounds) for one, bounds in zip((x, y), ranges, strict=True))
    deviations = [float(((one - mean) ** 2).sum()) for one, mean in zip((x, y), means, strict=True)]
    return [float(np.vdot(p, np.log(p / q))), float(p.sum()), float(q.sum()), *deviations]


def _scaled(values: Array, least: float, greatest: float) -> Array:
    """Scale values to [0, 1], if they are not all the same, and keep them above zero."""
    scaled = (values - least) / (greatest - least) if greatest != least else values
    floored: Array = np.maximum(scaled, _FLOOR)
    return floored


def _cosine(sums: _Sums) -> float | None:
    if sums.size == 1:
        return 1.0
    target, golden = sums.norms
    if target <= EPSILON and golden < EPSILON:
        return 1.0
    if min(target, golden) ** 0.5 <= EPSILON:
        return None
    return min(sums.dot / target / golden, 1.0)


def _relative_l2(sums: _Sums) -> float:
    golden = sums.norms[1]
    return 0.0 if golden <= EPSILON else sums.squares**0.5 / golden


FIGURES: Mapping[str, Callable[[_Sums], float | None]] = {
    COSINE: _cosine,
    "MaxAbsoluteError": lambda sums: sums.apart[1],
    "AccumulatedRelativeError": lambda sums: sums.relative[0],
    RELATIVE_L2: _relative_l2,
    KL_DIVERGENCE: lambda sums: 0.0 if abs(sums.divergence) < EPSILON else sums.divergence,
    SPREAD: lambda sums: None,  # a text: see :attr:`Figures.spread`
    "MeanAbsoluteError": lambda sums: sums.apart[0] / sums.size,
    RMSE: lambda sums: (sums.squares / sums.size) ** 0.5,
    "MaxRelativeError": lambda sums: sums.relative[1],
    MEAN_RELATIVE: lambda sums: sums.relative[0] / sums.size,
}
"""Column -> the figure of a target and a golden tensor, in the order of the table."""
OF_BOOLS = (COSINE, RELATIVE_L2)
"""The figures that msprobe gives for truth values."""
NONE = "NaN"
"""The cell of a figure that is not there."""


@dataclass(frozen=True)
class Figures:
    """The figures of one tensor.

    Args:
        values: column -> figure; None where msprobe gives none.
        spread: the mean and the standard deviation of both tensors, as the table has them.
        reason: why a figure is missing; empty if none is.
        finite: whether every value of the target is finite, or the golden one at its place is not either.
    """

    values: Mapping[str, float | None]
    spread: str
    reason: str
    finite: bool

    def printed(self) -> dict[str, str]:
        """Return the cells of the table, with six decimals, in the order of the columns."""
        found = {name: NONE if value is None else f"{value:.6f}" for name, value in self.values.items()}
        return {**found, SPREAD: self.spread}


def compare(target: Array, golden: Array) -> Figures:
    """Return the figures of a target tensor beside a golden tensor of as many elements, of any shapes.

    Tensors without elements have no figures.
    """
    both_bool = target.dtype == golden.dtype == np.bool_
    x, y = target.reshape(-1), golden.reshape(-1)
    if not x.size:
        return Figures(dict.fromkeys(FIGURES), NONE, "the tensors have no elements", True)
    with np.errstate(all="ignore"):
        sums = _Sums.of(x, y)
        values = {
            name: None if both_bool and name not in OF_BOOLS else figure(sums)
            for name, figure in FIGURES.items()
        }
    spread = ",".join(map(_printed, sums.spread))
    reason = SCALAR if x.size == 1 else ZEROS if values[COSINE] is None else ""
    return Figures(values, NONE if both_bool else spread, reason, sums.finite)


def _printed(spread: tuple[float, float]) -> str:
    """Return a mean and a standard deviation as msprobe prints them."""
    mean, deviation = (0.0 if abs(one) < _LEAST_DEVIATION else one for one in spread)
    return f"({mean:.3f};{deviation:.3f})"
