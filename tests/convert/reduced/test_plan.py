"""The scale and the zero point of a range, against numbers that are worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vconv.convert.reduced.plan import Range

RANGES = {
    "of both signs": (-1.0, 3.0, 4 / 255, 64),
    "mostly of negative numbers": (-2.0, 1.0, 3 / 255, 170),
    "of positive numbers": (0.0, 5.1, 5.1 / 255, 0),
    "of negative numbers": (-5.1, 0.0, 5.1 / 255, 255),
    "nearly of one sign": (-1e-6, 1.0, 1 / 255, 0),
    "of zeros": (0.0, 0.0, 1.0, 0),
    "too small for float32": (0.0, 1e-44, 1.0, 0),
}


@pytest.mark.parametrize("name", RANGES)
def test_a_range_becomes_256_steps_with_an_exact_zero(name: str) -> None:
    least, greatest, scale, zero = RANGES[name]
    found = Range(least, greatest)
    assert found.scale == pytest.approx(scale, rel=2e-6)
    assert found.scale == float(np.float32(found.scale))
    assert found.zero_point == zero


def test_both_ends_of_a_range_are_within_half_a_step_of_what_stands_for_them() -> None:
    chance = np.random.default_rng(0)
    for least, greatest in zip(-chance.exponential(size=200), chance.exponential(size=200), strict=True):
        one = Range(float(least), float(greatest))
        ends = [(step - one.zero_point) * one.scale for step in (0, 255)]
        np.testing.assert_allclose(ends, [least, greatest], rtol=0, atol=0.5001 * one.scale)
