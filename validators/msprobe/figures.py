"""The figures of msprobe's table for two tensors, in float64.

The formulas are those of ``msaccucmp/algorithm_manager/builtin_algorithm/``, one file a figure. msprobe
computes all but the standard deviation in float32, from values cast to float32, and adds up in float32; that
is the only difference, and it shows where many values are added up, in the accumulated relative error most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from vconv.types import Array

EPSILON = float(np.finfo(float).eps)
"""Absolute values up to this one count as zero."""
_FLOOR = float(np.finfo(np.float32).eps)
"""The least value of a normalised tensor, whose logarithm is taken."""
SPREAD, _LEAST_DEVIATION = "StandardDeviation", 0.001
COSINE, RELATIVE_L2 = "CosineSimilarity", "RelativeEuclideanDistance"
KL_DIVERGENCE, RMSE, MEAN_RELATIVE = "KullbackLeiblerDivergence", "RootMeanSquareError", "MeanRelativeError"
ZEROS = "all values of one of the two tensors are zero"
SCALAR = "This tensor is scalar."
"""msprobe's words in CompareFailReason of a tensor with one value."""


def _cosine(x: Array, y: Array) -> float | None:
    if x.size == 1:
        return 1.0
    norms = float(np.linalg.norm(x)), float(np.linalg.norm(y))
    if norms[0] <= EPSILON and norms[1] < EPSILON:
        return 1.0
    if min(norms) ** 0.5 <= EPSILON:
        return None
    return min(float(((x / norms[0]) * (y / norms[1])).sum()), 1.0)


def _relative(x: Array, y: Array) -> Array:
    """Return each value's relative error; 0 where the golden value counts as zero."""
    counted = np.abs(y) > EPSILON
    return np.where(counted, np.abs(x / np.where(counted, y, 1.0) - 1), 0.0)


def _relative_l2(x: Array, y: Array) -> float:
    squares = float((y**2).sum())
    return 0.0 if squares**0.5 <= EPSILON else (float(((x - y) ** 2).sum()) / squares) ** 0.5


def _distribution(values: Array) -> Array:
    """Scale values to [0, 1] and divide them by their sum."""
    span = values.max() - values.min()
    scaled = (values - values.min()) / span if span != 0 else values
    floored = np.maximum(scaled, _FLOOR)
    found: Array = floored / floored.sum()
    return found


def _kl_divergence(x: Array, y: Array) -> float:
    p, q = _distribution(x), _distribution(y)
    found = float((p * np.log(p / q)).sum())
    return 0.0 if abs(found) < EPSILON else found


FIGURES: Mapping[str, Callable[[Array, Array], float | None]] = {
    COSINE: _cosine,
    "MaxAbsoluteError": lambda x, y: float(np.abs(x - y).max()),
    "AccumulatedRelativeError": lambda x, y: float(_relative(x, y).sum()),
    RELATIVE_L2: _relative_l2,
    KL_DIVERGENCE: _kl_divergence,
    SPREAD: lambda x, y: None,  # a text: see :attr:`Figures.spread`
    "MeanAbsoluteError": lambda x, y: float(np.abs(x - y).mean()),
    RMSE: lambda x, y: float(np.sqrt(((x - y) ** 2).mean())),
    "MaxRelativeError": lambda x, y: float(_relative(x, y).max()),
    MEAN_RELATIVE: lambda x, y: float(_relative(x, y).mean()),
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
    x, y = (one.ravel().astype(np.float64) for one in (target, golden))
    if not x.size:
        return Figures(dict.fromkeys(FIGURES), NONE, "the tensors have no elements", True)
    with np.errstate(all="ignore"):
        values = {
            name: None if both_bool and name not in OF_BOOLS else figure(x, y)
            for name, figure in FIGURES.items()
        }
        spread = NONE if both_bool else f"({_spread(x)}),({_spread(y)})"
    reason = SCALAR if x.size == 1 else ZEROS if values[COSINE] is None else ""
    return Figures(values, spread, reason, bool((np.isfinite(x) | ~np.isfinite(y)).all()))


def _spread(values: Array) -> str:
    pair = (float(values.mean()), float(values.std()))
    mean, deviation = (0.0 if abs(one) < _LEAST_DEVIATION else one for one in pair)
    return f"{mean:.3f};{deviation:.3f}"
