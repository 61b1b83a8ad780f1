"""A position embedding resampled by our own matrices, in float64.

The reference resamples it with torch: see :mod:`vconv.convert.libraries.corrections`. The two share no code,
so that a mistake in either shows.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from vconv.convert.weights.values import Values

_SHARPNESS = -0.75
"""The parameter of the cubic kernel in torch."""
_REACH = 2
"""How many old places on each side the kernel takes."""


def _cubic(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the cubic convolution kernel (Keys 1981) at distances of at most two places."""
    x, a = np.abs(distances), _SHARPNESS
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return np.where(x <= 1, near, np.where(x < _REACH, far, 0.0))


def matrix(new: int, old: int, offset: float) -> NDArray[np.float64]:
    """Return the matrix that resamples ``old`` places to ``new`` ones; those at the border are repeated.

    Args:
        new: number of new places.
        old: number of old places.
        offset: the offset of a :class:`~vconv.convert.architectures.positions.Kernel` without antialias.

    Returns:
        float64 (new, old).
    """
    centres = (np.arange(new) + 0.5) * old / (new + offset) - 0.5
    found = np.zeros((new, old))
    for step in range(1 - _REACH, 1 + _REACH):
        places = np.floor(centres) + step
        inside = np.clip(places, 0, old - 1).astype(int)
        np.add.at(found, (np.arange(new), inside), _cubic(centres - places))
    return found


def resampled(embedding: Values, grid: tuple[int, int], offset: float) -> Values:
    """Resample the position embedding of a class token and a square of patches.

    Args:
        embedding: (1, 1 + N * N, D).
        grid: the new (rows, columns).
        offset: as in :func:`matrix`.

    Returns:
        float32 (1, 1 + rows * columns, D).
    """
    width, side = embedding.shape[2], math.isqrt(embedding.shape[1] - 1)
    rows, columns = (matrix(count, side, offset) for count in grid)
    patches = embedding[0, 1:].astype(np.float64).reshape(side, side * width)
    down = (rows @ patches).reshape(grid[0], side, width)
    across = np.einsum("wn,hnd->hwd", columns, down).reshape(-1, width)
    return np.concatenate([embedding[:, :1], across[None]], axis=1, dtype=np.float32)
