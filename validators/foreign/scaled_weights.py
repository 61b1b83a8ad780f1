"""Whether a constant of a graph is a weight with a scale folded into it.

Exporters fold a LayerScale, or the scale of a norm, into the matrix beside it, and into its bias. Then each
row or column of the matrix has one factor. Any vector is another one times some factors, and a fault may
multiply a whole weight. So the factors of a vector, and those that are all the same, must be a vector of the
original that is not in the graph.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from vconv.types import Array

_ROUNDINGS = 1.25
"""How far a scaled weight may be off, in units of its type's spacing: half a unit for the product, half for
the factor that is found from another product, and a margin."""


def is_scaled(stored: Array, value: Array, vectors: Iterable[Array]) -> bool:
    """Return whether a constant is a weight times one factor for each row or column, within rounding.

    Args:
        stored: the weight, its elements in the order of the constant's.
        value: the constant.
        vectors: the vectors of the original that are not in the graph.
    """
    rounding = _ROUNDINGS * float(np.finfo(value.dtype).eps)
    matrix = stored.reshape(len(stored), -1).astype(np.float64)
    given = value.reshape(matrix.shape).astype(np.float64)
    for weight, scaled in ((matrix, given), (matrix.T, given.T)):
        factors = _factors(weight, scaled, rounding, float(np.finfo(value.dtype).smallest_subnormal))
        if factors is None:
            continue
        varied = weight.shape[1] > 1 and np.ptp(factors) > 2 * rounding * abs(factors).max()
        if varied or any(_same(one, factors, rounding) for one in vectors):
            return True
    return False


def _factors(weight: Array, scaled: Array, rounding: float, least: float) -> Array | None:
    """Return the factor of each row of a matrix that gives another one; None if there are none.

    Args:
        weight: the matrix, float64.
        scaled: the other one.
        rounding: the relative error that an element may have.
        least: the absolute error that an element may have.
    """
    rows, greatest = np.arange(len(weight)), abs(weight).argmax(axis=1)
    divisors = weight[rows, greatest]
    factors = np.divide(scaled[rows, greatest], divisors, where=divisors != 0, out=np.ones(len(weight)))
    error = abs(scaled - factors[:, None] * weight)
    return factors if np.all(error <= rounding * abs(scaled) + least) else None


def _same(vector: Array, factors: Array, rounding: float) -> bool:
    return vector.shape == factors.shape and np.allclose(vector, factors, rtol=rounding, atol=0)
