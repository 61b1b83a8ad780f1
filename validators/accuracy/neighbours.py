"""Nearest neighbours: whether two variants find the same images similar.

``torch.topk`` could find neighbours too, but does not define which of two equal values it returns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vconv.types import Array

MOST = 10
"""Number of neighbours per image that are compared."""
_ROWS, _COLUMNS = 512, 4096
"""Images per block of the comparison: memory does not grow with the number of images."""
_STEPS = 2**36
"""Number of steps from 0 to 1 to which cosines are rounded: a step is far greater than rounding in float64,
and far smaller than rounding of float32 features."""
_PLACES = 2**26
"""The greatest number of images that keys can distinguish."""
_NONE = np.iinfo(np.int64).min
"""Smaller than any key."""
Keys = NDArray[np.int64]


def how_many(images: int) -> int:
    """Return how many neighbours are compared: at most half of the other images; all would always agree."""
    return min(MOST, (images - 1) // 2)


def nearest(features: Array, found: Array) -> None:
    """Find each image's nearest neighbours by cosine, without the image itself, exactly and block by block.

    Among equally near images, the first ones are taken. A vector without a direction, because it is zero or
    not finite, has a cosine of 0 with every other.

    Args:
        features: (N, D), such as a memory-mapped file.
        found: int64 (N, k), receives the indices of the neighbours, in no order; k is less than N.
    """
    total, count = found.shape
    if not count:
        return
    for start in range(0, total, _ROWS):
        rows = _directions(features[start : start + _ROWS])
        best = np.full((len(rows), count), _NONE)
        for left in range(0, total, _COLUMNS):
            cosines = rows @ _directions(features[left : left + _COLUMNS]).T
            own = np.arange(start, start + len(rows)) - left
            inside = (own >= 0) & (own < cosines.shape[1])
            cosines[np.flatnonzero(inside), own[inside]] = -np.inf
            both = np.concatenate([best, _keys(cosines, left, best.min(axis=1))], axis=1)
            best = np.partition(both, both.shape[1] - count, axis=1)[:, both.shape[1] - count :]
        found[start : start + _ROWS] = _PLACES - 1 - best % _PLACES


def _directions(features: Array) -> NDArray[np.float64]:
    """Return (N, D) in float64, each row scaled to length 1, or 0 if it has no direction."""
    rows = features.astype(np.float64)
    rows[~np.isfinite(rows).all(axis=1)] = 0.0
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0, norms, 1.0))


def _keys(cosines: NDArray[np.float64], left: int, least: Keys) -> Keys:
    """Combine each cosine and its column into one key: the nearest image has the greatest, then the first.

    Args:
        cosines: (R, C); minus infinity excludes a column.
        left: the index of the first column.
        least: (R,), the value that a key must exceed to be needed.

    Returns:
        (R, M), in each row the needed keys, and maybe some more; M is as small as possible.
    """
    # One step less than that of the least key, so that rounding excludes no equal one.
    rows, columns = np.nonzero(cosines >= ((least // _PLACES - 1) / _STEPS)[:, None])
    steps = np.rint(cosines[rows, columns] * _STEPS).astype(np.int64)
    counts = np.bincount(rows, minlength=len(cosines))
    keys = np.full((len(cosines), counts.max()), _NONE)
    places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    keys[rows, places] = steps * _PLACES + (_PLACES - 1 - left - columns)
    return keys


def shared_neighbours(first: Array, second: Array) -> float | None:
    """Return the share of neighbours that two variants have in common: the mean over images of |A and B| / k.

    It is None if k is 0.

    Args:
        first: (N, k), the indices of each image's neighbours.
        second: the same for the other variant.
    """
    same = 0
    for start in range(0, len(first), _ROWS):
        a, b = first[start : start + _ROWS], second[start : start + _ROWS]
        same += int((a[:, :, None] == b[:, None, :]).any(axis=2).sum())
    return same / first.size if first.size else None
