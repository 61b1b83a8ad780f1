"""Nearest neighbours: whether two variants find the same images alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vconv.types import Array

MOST = 10
"""Neighbours of an image that are compared."""
_ROWS, _COLUMNS = 256, 4096
"""Images that are held against each other at once: memory does not grow with their number."""
_STEPS = 2**36
"""Steps from 0 to 1 by which cosines are told apart: far more than rounding in float64 comes to, and far
less than that of float32 features."""
_PLACES = 2**26
"""More images than this are not told apart by a key."""
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
        best = np.full((len(rows), count), np.iinfo(np.int64).min)
        for left in range(0, total, _COLUMNS):
            keys = _keys(rows @ _directions(features[left : left + _COLUMNS]).T, left)
            own = np.arange(start, start + len(rows)) - left
            inside = (own >= 0) & (own < keys.shape[1])
            keys[np.flatnonzero(inside), own[inside]] = np.iinfo(np.int64).min
            both = np.concatenate([best, keys], axis=1)
            best = np.partition(both, both.shape[1] - count, axis=1)[:, both.shape[1] - count :]
        found[start : start + _ROWS] = _PLACES - 1 - best % _PLACES


def _directions(features: Array) -> NDArray[np.float64]:
    """Return (N, D) in float64, each row of length 1, or 0 where it has no direction."""
    rows = features.astype(np.float64)
    rows[~np.isfinite(rows).all(axis=1)] = 0.0
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0, norms, 1.0))


def _keys(cosines: NDArray[np.float64], left: int) -> Keys:
    """Make of each cosine and its column one number: the nearer the greater, of equals the first."""
    steps = np.rint(cosines * _STEPS).astype(np.int64)
    return steps * _PLACES + (_PLACES - 1 - left - np.arange(cosines.shape[1]))


def agreement(first: Array, second: Array) -> float | None:
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
