"""What reduced precision loses in the uses of features: token directions, nearest neighbours, classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vconv.types import Array, Arrays
from vconv.validators.accuracy.metrics import token_cosine_min
from vconv.validators.accuracy.neighbours import how_many, nearest, shared_neighbours

LOGITS, POOLED = "logits", "pooled"


@dataclass(frozen=True)
class Losses:
    """Shares from 0, nothing lost, to 1.

    Args:
        cosine: 1 less the least cosine of a token, over the images and outputs; of each image's whole output
            where it has no tokens. NaN if an output has Inf or NaN.
        neighbours: the share of the nearest neighbours among the images that changed; None if there are too
            few images, or no pooled output.
        top1: the share of the images whose class changed; None without a classifier.
    """

    cosine: float
    neighbours: float | None
    top1: float | None

    @property
    def worst(self) -> float:
        """The greatest of them; infinite if one is NaN."""
        known = [one for one in (self.cosine, self.neighbours, self.top1) if one is not None]
        return float("inf") if np.isnan(known).any() else max(known)


def losses(actual: Arrays, expected: Arrays, elsewhere: Sequence[tuple[Arrays, Arrays]] = ()) -> Losses:
    """Return what was lost between two results on the same images, (N, ...) by output.

    Args:
        actual: the result to judge.
        expected: the result that it should be.
        elsewhere: the same on a few images of other sizes, of which only the cosine counts.
    """
    pairs = [(actual, expected), *elsewhere]
    return Losses(
        cosine=float(np.max([_direction(a[name], e[name]) for a, e in pairs for name in e])),
        neighbours=_neighbours(actual[POOLED], expected[POOLED]) if POOLED in expected else None,
        top1=float((actual[LOGITS].argmax(axis=1) != expected[LOGITS].argmax(axis=1)).mean())
        if LOGITS in expected
        else None,
    )


def _direction(actual: Array, expected: Array) -> float:
    if not np.isfinite(actual).all():
        return float("nan")
    pairs = zip(actual.astype(np.float64), expected.astype(np.float64), strict=True)
    return 1.0 - min(token_cosine_min(a, e) for a, e in pairs)


def _neighbours(actual: Array, expected: Array) -> float | None:
    count = how_many(len(expected))
    if not count:
        return None
    found = [np.zeros((len(expected), count), np.int64) for _ in range(2)]
    for features, places in zip((actual, expected), found, strict=True):
        nearest(features, places)
    shared = shared_neighbours(*found)
    return None if shared is None else 1.0 - shared
