"""Metrics of the difference between an output and the expected one. All are computed in float64.

Throughout, ``a`` is the actual output and ``e`` the expected one, of one image: (D,) or (N, D).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vconv.types import Array

Double = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """One metric: a row of the table.

    Args:
        compute: from (actual, expected) to a number.
        better: whether low or high values are good.
        only: the only output to which it applies; empty if it applies to all.
    """

    compute: Callable[[Double, Double], float]
    better: Literal["low", "high"]
    only: str = ""

    def applies_to(self, output: str) -> bool:
        """Return whether the metric applies to an output."""
        return self.only in ("", output)

    def worst(self, values: list[float]) -> float:
        """Return the worst of several values; NaN is worse than any number."""
        return float(np.max(values) if self.better == "low" else np.min(values))

    def within(self, value: float, bound: float) -> bool:
        """Return whether a value meets a bound; NaN never does."""
        return value <= bound if self.better == "low" else value >= bound


def _ratio(numerator: float, denominator: float) -> float:
    if denominator == 0.0:
        return 0.0 if numerator == 0.0 else float("inf")
    return numerator / denominator


def max_abs(a: Double, e: Double) -> float:
    """Return max |a - e|."""
    return float(np.abs(a - e).max())


def mean_abs(a: Double, e: Double) -> float:
    """Return mean |a - e|."""
    return float(np.abs(a - e).mean())


def _elementwise(a: Double, e: Double) -> Double:
    difference, size = np.abs(a - e), np.abs(e)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(difference == 0.0, 0.0, difference / size), dtype=np.float64)


def max_rel(a: Double, e: Double) -> float:
    """Return max(|a - e| / |e|); infinite where e is zero and a is not. Elements near zero dominate it."""
    return float(_elementwise(a, e).max())


def mean_rel(a: Double, e: Double) -> float:
    """Return mean(|a - e| / |e|); infinite where e is zero and a is not. Elements near zero dominate it."""
    return float(_elementwise(a, e).mean())


def relative_error(a: Double, e: Double) -> float:
    """Return mean |a - e| / mean |e|."""
    return _ratio(float(np.abs(a - e).mean()), float(np.abs(e).mean()))


def vector_relative_error(a: Double, e: Double) -> float:
    """Return ||a - e|| / ||e||, Euclidean, over all elements."""
    return _ratio(float(np.linalg.norm(a - e)), float(np.linalg.norm(e)))


def cosine(a: Double, e: Double) -> float:
    """Return a . e / (||a|| ||e||), flattened; 1 for two zero vectors, 0 if only one is zero."""
    return float(_token_cosines(a.reshape(1, -1), e.reshape(1, -1))[0])


def _token_cosines(a: Double, e: Double) -> Double:
    a, e = a.reshape(-1, a.shape[-1]), e.reshape(-1, e.shape[-1])
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(e, axis=1)
    same = (a == e).all(axis=1)
    products = (a * e).sum(axis=1)
    cosines = np.divide(products, norms, out=np.zeros_like(norms), where=norms > 0)
    return np.where(same, 1.0, np.clip(cosines, -1.0, 1.0))


def token_cosine_p1(a: Double, e: Double) -> float:
    """Return the first percentile of the tokens' cosines."""
    return float(np.percentile(_token_cosines(a, e), 1))


def token_cosine_min(a: Double, e: Double) -> float:
    """Return the least of the tokens' cosines."""
    return float(_token_cosines(a, e).min())


def mse(a: Double, e: Double) -> float:
    """Return mean (a - e)^2."""
    return float(np.square(a - e).mean())


def top1_match(a: Double, e: Double) -> float:
    """Return 1 if both have their greatest logit in the same class, else 0."""
    return float(a.argmax() == e.argmax())


METRICS: Mapping[str, Metric] = {
    "max_abs": Metric(max_abs, "low"),
    "mean_abs": Metric(mean_abs, "low"),
    "max_rel": Metric(max_rel, "low"),
    "mean_rel": Metric(mean_rel, "low"),
    "relative_error": Metric(relative_error, "low"),
    "vector_relative_error": Metric(vector_relative_error, "low"),
    "cosine": Metric(cosine, "high"),
    "token_cosine_p1": Metric(token_cosine_p1, "high"),
    "token_cosine_min": Metric(token_cosine_min, "high"),
    "mse": Metric(mse, "low"),
    "top1_match": Metric(top1_match, "high", only="logits"),
}
"""Every metric, by its name in reports."""


def measure(name: str, actual: Array, expected: Array) -> dict[str, float]:
    """Compute every metric of one output.

    Args:
        name: the output's name.
        actual: (B, ...), finite.
        expected: the same shape, finite.

    Returns:
        By metric, the worst value over the images: a bad image is not averaged away.
    """
    images = list(zip(actual.astype(np.float64), expected.astype(np.float64), strict=True))
    return {
        key: metric.worst([metric.compute(a, e) for a, e in images])
        for key, metric in METRICS.items()
        if metric.applies_to(name)
    }
