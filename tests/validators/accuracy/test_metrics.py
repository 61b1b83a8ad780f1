from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import numpy as np
import pytest

from vconv.types import Array
from vconv.validators.accuracy.metrics import METRICS, measure

Tokens = list[list[float]]
"""An output, token by token; one that has no tokens is one."""
Reference = Callable[[Tokens, Tokens], float]


def flat(tokens: Tokens) -> list[float]:
    return [value for token in tokens for value in token]


def apart(a: Tokens, e: Tokens) -> list[float]:
    return [abs(x - y) for x, y in zip(flat(a), flat(e), strict=True)]


def ratios(a: Tokens, e: Tokens) -> list[float]:
    return [abs(x / y - 1) for x, y in zip(flat(a), flat(e), strict=True)]


def angle(a: list[float], e: list[float]) -> float:
    """Return the cosine by the law of cosines for the two unit vectors."""
    lengths = math.hypot(*a), math.hypot(*e)
    between = math.dist([x / lengths[0] for x in a], [y / lengths[1] for y in e])
    return 1 - between**2 / 2


def angles(a: Tokens, e: Tokens) -> list[float]:
    return list(map(angle, a, e))


def first_percentile(values: list[float]) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[0] if len(values) > 1 else values[0]


REFERENCES: dict[str, Reference] = {
    "max_abs": lambda a, e: max(apart(a, e)),
    "mean_abs": lambda a, e: statistics.fmean(apart(a, e)),
    "max_rel": lambda a, e: max(ratios(a, e)),
    "mean_rel": lambda a, e: statistics.fmean(ratios(a, e)),
    "relative_error": lambda a, e: math.fsum(apart(a, e)) / math.fsum(map(abs, flat(e))),
    "vector_relative_error": lambda a, e: math.dist(flat(a), flat(e)) / math.hypot(*flat(e)),
    "cosine": lambda a, e: angle(flat(a), flat(e)),
    "token_cosine_p1": lambda a, e: first_percentile(angles(a, e)),
    "token_cosine_min": lambda a, e: min(angles(a, e)),
    "mse": lambda a, e: statistics.fmean(x * x for x in apart(a, e)),
    "top1_match": lambda a, e: float(flat(a).index(max(flat(a))) == flat(e).index(max(flat(e)))),
}
"""Every metric again, from the standard library's exact sums, for one image in float64."""

SHAPES = {"cls": (24,), "patches": (150, 8), "logits": (10,)}


def pair(shape: tuple[int, ...], scale: float, noise: float, seed: int = 0) -> tuple[Array, Array]:
    """Return an output and what it should be, float32, neither with a zero."""
    generator = np.random.default_rng(seed)
    expected = generator.standard_normal(shape) + np.where(generator.random(shape) < 0.5, -0.1, 0.1)
    actual = expected + noise * generator.standard_normal(shape)
    return (scale * actual).astype(np.float32), (scale * expected).astype(np.float32)


def only_here(key: str, name: str) -> bool:
    return METRICS[key].only in ("", name)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("noise", [1e-6, 3.0])
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("key", METRICS)
def test_a_metric_is_what_exact_sums_make_of_its_formula(
    key: str, name: str, noise: float, scale: float
) -> None:
    if not only_here(key, name):
        assert key not in measure(name, *(value[None] for value in pair(SHAPES[name], scale, noise)))
        return
    actual, expected = pair(SHAPES[name], scale, noise)
    found = measure(name, actual[None], expected[None])[key]
    a, e = (np.atleast_2d(value.astype(np.float64)).tolist() for value in (actual, expected))
    assert found == pytest.approx(REFERENCES[key](a, e), rel=1e-9, abs=1e-300)


ZEROS = {
    "both": (np.zeros(4), np.zeros(4)),
    "expected": (np.ones(4), np.zeros(4)),
    "actual": (np.zeros(4), np.ones(4)),
}
INF = math.inf
WITH_ZEROS = {
    "max_abs": (0, 1, 1),
    "mean_abs": (0, 1, 1),
    "max_rel": (0, INF, 1),
    "mean_rel": (0, INF, 1),
    "relative_error": (0, INF, 1),
    "vector_relative_error": (0, INF, 1),
    "cosine": (1, 0, 0),
    "token_cosine_p1": (1, 0, 0),
    "token_cosine_min": (1, 0, 0),
    "mse": (0, 1, 1),
    "top1_match": (1, 1, 1),
}
"""By metric: its value where both are zero, where only the expected is, and where only the actual is."""


@pytest.mark.parametrize("place", range(3), ids=list(ZEROS))
@pytest.mark.parametrize("key", METRICS)
def test_zero_vectors_have_a_defined_distance(key: str, place: int) -> None:
    actual, expected = list(ZEROS.values())[place]
    assert METRICS[key].compute(actual, expected) == WITH_ZEROS[key][place]


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("key", METRICS)
def test_equal_outputs_have_the_best_value_there_is(key: str, name: str) -> None:
    if only_here(key, name):
        _, expected = pair(SHAPES[name], 1.0, 0.0)
        best = 0.0 if METRICS[key].better == "low" else 1.0
        assert measure(name, expected[None], expected[None])[key] == best


@pytest.mark.parametrize("position", [0, 7, 15])
@pytest.mark.parametrize("key", METRICS)
def test_one_bad_image_out_of_many_is_not_averaged_away(key: str, position: int) -> None:
    name = METRICS[key].only or "patches"
    expected = pair((16, *SHAPES[name]), 1.0, 0.0)[1]
    actual = expected.copy()
    actual[position] = np.roll(expected[position], 1)
    alone = measure(name, actual[position][None], expected[position][None])
    assert measure(name, actual, expected)[key] == alone[key]
    assert alone[key] != measure(name, expected, expected)[key]


@pytest.mark.parametrize("key", METRICS)
def test_of_several_values_the_worst_is_kept_wherever_it_is(key: str) -> None:
    worst = 0.9 if METRICS[key].better == "low" else 0.1
    for values in ([0.1, 0.5, 0.9], [0.9, 0.5, 0.1], [0.5, 0.9, 0.1]):
        assert METRICS[key].worst(values) == worst


@pytest.mark.parametrize("values", [[math.nan, 0.5], [0.5, math.nan]], ids=["first", "last"])
@pytest.mark.parametrize("key", METRICS)
def test_nan_is_the_worst_of_several_values(key: str, values: list[float]) -> None:
    assert math.isnan(METRICS[key].worst(values))


@pytest.mark.parametrize("key", METRICS)
def test_nan_is_within_no_bound(key: str) -> None:
    assert not METRICS[key].within(math.nan, 0.5)


@pytest.mark.parametrize("key", METRICS)
def test_a_value_on_its_bound_is_within_it_and_a_worse_one_is_not(key: str) -> None:
    metric, worse = METRICS[key], 1e-12 if METRICS[key].better == "low" else -1e-12
    assert metric.within(0.5, 0.5)
    assert metric.within(0.5 - worse, 0.5)
    assert not metric.within(0.5 + worse, 0.5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_sums_are_made_in_float64(dtype: type) -> None:
    expected = np.full((1, 4096), 200.0, dtype)
    actual = expected.copy()
    actual[0, 0] = 200.5
    found = measure("cls", actual, expected)
    assert found["mean_abs"] == pytest.approx(0.5 / 4096, rel=1e-12)
    assert found["vector_relative_error"] == pytest.approx(0.5 / (200 * 64), rel=1e-12)
    assert 0.0 < 1.0 - found["cosine"] < 1e-8


def test_huge_magnitudes_do_not_overflow() -> None:
    greatest = float(np.finfo(np.float32).max)
    expected = np.full((1, 3, 5), greatest, np.float32)
    found = measure("patches", -expected, expected)
    assert found["vector_relative_error"] == pytest.approx(2.0)
    assert found["cosine"] == pytest.approx(-1.0)
    assert found["max_abs"] == pytest.approx(2 * greatest)
    assert all(math.isfinite(value) for value in found.values())


def test_the_least_numbers_do_not_underflow() -> None:
    expected = np.full((1, 5), np.finfo(np.float32).smallest_subnormal, np.float32)
    found = measure("cls", 2 * expected, expected)
    assert found["vector_relative_error"] == pytest.approx(1.0)
    assert found["cosine"] == pytest.approx(1.0)


def test_one_bad_token_shows_in_the_least_cosine_and_hardly_in_the_whole() -> None:
    expected = pair((1, 500, 24), 1.0, 0.0)[1]
    actual = expected.copy()
    actual[0, 17] *= -1
    found = measure("patches", actual, expected)
    assert found["token_cosine_min"] == pytest.approx(-1.0)
    assert found["token_cosine_p1"] == 1.0
    assert found["cosine"] > 0.99


def test_cosines_never_leave_their_range() -> None:
    for seed in range(50):
        _, expected = pair((1, 7, 24), 1.0, 0.0, seed)
        for factor in (np.float32(3), np.float32(-3)):
            found = measure("patches", factor * expected, expected)
            assert all(-1.0 <= found[key] <= 1.0 for key in ("cosine", "token_cosine_p1", "token_cosine_min"))


ROUNDED_UP = ([6.0, 6.0], [15.0, 8.0, 9.0], [6.0, 18.0, 13.0, 17.0])
"""Vectors of which a multiple has, in float64, a . e that is greater than ||a|| ||e||."""


@pytest.mark.parametrize("factor", [2.0, 8.0, 3.0, -2.0, -8.0, -3.0])
@pytest.mark.parametrize("vector", ROUNDED_UP, ids=len)
def test_a_cosine_that_rounding_takes_past_one_is_one(vector: list[float], factor: float) -> None:
    expected = np.array([vector])
    assert METRICS["cosine"].compute(factor * expected, expected) == pytest.approx(math.copysign(1, factor))
    assert abs(METRICS["cosine"].compute(factor * expected, expected)) <= 1.0


def test_the_top_class_is_compared_image_by_image() -> None:
    expected = np.eye(5, dtype=np.float32)
    assert measure("logits", expected, expected)["top1_match"] == 1.0
    assert measure("logits", expected[[0, 1, 2, 4, 3]], expected)["top1_match"] == 0.0


def test_a_different_number_of_images_is_an_error() -> None:
    with pytest.raises(ValueError, match="shorter|longer"):
        measure("cls", np.zeros((2, 4)), np.zeros((3, 4)))
