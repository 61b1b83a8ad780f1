from __future__ import annotations

import pytest

from vconv.validators.report.page.views.agreement import position


@pytest.mark.parametrize(
    ("error", "place"),
    [(1e-6, 15.0), (1e-5, 38.3), (1e-4, 61.7), (1e-3, 85.0), (1e-9, 15.0), (0.0, 15.0), (1.0, 98.0)],
)
def test_an_error_stands_between_floor_and_limit_by_its_logarithm(error: float, place: float) -> None:
    assert position(error, 1e-6, 1e-3) == pytest.approx(place, abs=0.05)


@pytest.mark.parametrize(
    ("error", "floor", "limit"),
    [(None, 1e-6, 1e-3), (1e-4, None, 1e-3), (1e-4, 1e-6, None), (1e-4, 1e-3, 1e-6)],
)
def test_without_a_scale_there_is_no_place(
    error: float | None, floor: float | None, limit: float | None
) -> None:
    assert position(error, floor, limit) is None
