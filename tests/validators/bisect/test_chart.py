from __future__ import annotations

import math

import pytest

from vconv.validators.bisect.chart import error_against_depth
from vconv.validators.bisect.localisation import Departure, StageError


def departure(*errors: float) -> Departure:
    rows = tuple(StageError(f"stage {place}", value, value * 2) for place, value in enumerate(errors))
    return Departure(rows, 1, (), None, 1e-5)


def test_the_same_figures_give_the_same_bytes_and_others_do_not() -> None:
    first, second = (error_against_depth(departure(1e-7, 1e-4, 1e-6), "a title") for _ in range(2))
    assert first == second
    assert error_against_depth(departure(1e-7, 2e-4, 1e-6), "a title") != first


def test_a_picture_has_its_title_its_legend_and_every_stage_as_text() -> None:
    drawn = error_against_depth(departure(1e-7, 1e-4, 1e-6), "a title").decode()
    words = ("a title", "accumulated", "stage alone", "limit", "vector relative error")
    for word in (*words, "stage 0", "stage 1", "stage 2"):
        assert f">{word}<" in drawn


@pytest.mark.parametrize("value", [0.0, math.inf, math.nan])
def test_what_has_no_logarithm_is_drawn_all_the_same(value: float) -> None:
    assert error_against_depth(departure(1e-7, value, 1e-6), "a title").startswith(b"<?xml")
