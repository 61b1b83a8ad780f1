"""Images that a graph of another exporter takes."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from vconv.runtime.engines.adapted import Given, Levels, on_whole_levels, takes_whole_numbers
from vconv.types import Array

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture
def levels() -> Array:
    """Grey levels that are no whole numbers, some beyond the least and the greatest, float64 (2, 3, 5, 7)."""
    return np.random.default_rng(0).uniform(-3, 258, (2, 3, 5, 7))


def normalised(levels: Array) -> Array:
    """Return normalised images, each value computed with fractions."""
    values = np.empty(levels.shape, np.float32)
    for place, level in np.ndenumerate(levels):
        mean, deviation = Fraction(MEAN[place[1]]), Fraction(DEVIATION[place[1]])
        values[place] = float((Fraction(float(level)) / 255 - mean) / deviation)
    return values


def test_images_on_whole_levels_are_those_of_the_rounded_levels(levels: Array) -> None:
    found = on_whole_levels(normalised(levels), MEAN, DEVIATION)
    whole = np.array([min(max(round(level), 0), 255) for level in levels.ravel()]).reshape(levels.shape)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, normalised(whole))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_graph_of_whole_numbers_gets_the_levels_of_such_images(levels: Array, layout: str) -> None:
    given = Given(layout, "uint8", Levels.GREY, MEAN, DEVIATION)
    whole = np.clip(np.rint(levels), 0, 255)
    expected = whole if layout == "NCHW" else np.moveaxis(whole, 1, 3)
    found = given.made(on_whole_levels(normalised(levels), MEAN, DEVIATION))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("dtype", "whole"), [("uint8", True), ("int32", True), ("float32", False), ("float16", False)]
)
def test_whole_numbers_are_known_by_their_type(dtype: str, whole: bool) -> None:
    assert takes_whole_numbers(dtype) is whole
