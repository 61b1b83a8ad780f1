"""Nearest neighbours: whether two variants find the same images alike.

``torch.topk`` finds neighbours too, but does not define which of two equal ones it returns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vconv.types import Array

MOST = 10
"""Neighbours of an image that are compared."""
_ROWS, _COLUMNS = 512, 4096
"""Images that are held against each other at once: memory does not grow with their number."""
_STEPS = 2**36
"""Steps from 0 to 1 by which cosines are told apart: far more than rounding in float64 comes to, and far
less than that of float32 features."""
_PLACES = 2**26
"""More images than this are not told apart by a key."""
_NONE = np.iinfo(np.int64).min
"""Less than any key."""
Keys = NDArray[np.int64]


def how_many(images: int) -> int:
    """Return how many neighbours are compared: at most half of the others, since all would always agree."""
    return min(MOST, (images - 1) // 2)


def nearest(features: Array, found: Array) -> None:
    """Find each image's nearest neighbours by cosine, itself left out, exactly and block by block.

    Among images that are equally near, those that come first are taken. What has no direction, because it is
    zero or not finite, has a cosine of 0 with everything.

    Args:
        features: (N, D), such as a memory-mapped file.
        found: int64 (N, k), where their places are written, in no order; k is less than N.
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
    """Return (N, D) in float64, each row of length 1, or 0 where it has no direction."""
    rows = features.astype(np.float64)
    rows[~np.isfinite(rows).all(axis=1)] = 0.0
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0, norms, 1.0))


def _keys(cosines: NDArray[np.float64], left: int, least: Keys) -> Keys:
    """Make of each cosine and its column one number: the nearer the greater, of equals the first.

    Args:
        cosines: (R, C); minus infinity for what is no neighbour.
        left: the place of the first column.
        least: (R,), what a key must exceed to be of use.

    Returns:
        (R, M), in each row the keys of use, and maybe some more; M is as few as that allows.
    """
    # One step less than that of the least key, so that no rounding leaves an equal one out.
    rows, columns = np.nonzero(cosines >= ((least // _PLACES - 1) / _STEPS)[:, None])
    steps = np.rint(cosines[rows, columns] * _STEPS).astype(np.int64)
    counts = np.bincount(rows, minlength=len(cosines))
    keys = np.full((len(cosines), counts.max()), _NONE)
    places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    keys[rows, places] = steps * _PLACES + (_PLACES - 1 - left - columns)
    return keys


def shared_neighbours(first: Array, second: Array) -> float | None:
    """Return the share of neighbours that two have in common: mean over images of |A and B| / k.

    None where k is 0.

    Args:
        first: (N, k), places of each image's neighbours.
        second: the same of another variant.
    """
    same = 0
    for start in range(0, len(first), _ROWS):
        a, b = first[start : start + _ROWS], second[start : start + _ROWS]
        same += int((a[:, :, None] == b[:, None, :]).any(axis=2).sum())
    return same / first.size if first.size else None
