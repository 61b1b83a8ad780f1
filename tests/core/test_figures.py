from __future__ import annotations

import math

import pytest

from vconv.figures import told_apart


@pytest.mark.parametrize(
    ("first", "second", "shown"),
    [
        (0.5, 0.25, ("0.5", "0.25")),
        (0.99896, 0.999, ("0.99896", "0.999")),
        (0.1 + 0.2, 0.3, ("0.30000000000000004", "0.29999999999999999")),
        (123456.0, 123457.0, ("123456", "123457")),
        (0.12345, 0.12345, ("0.123", "0.123")),
        (math.nan, 0.01, ("nan", "0.01")),
        (math.inf, 0.01, ("inf", "0.01")),
    ],
)
def test_two_numbers_have_the_digits_that_show_how_they_differ(
    first: float, second: float, shown: tuple[str, str]
) -> None:
    assert told_apart(first, second) == shown
    assert told_apart(second, first) == shown[::-1]
