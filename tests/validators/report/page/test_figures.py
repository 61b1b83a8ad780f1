from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from vconv.validators.report.page import figures

WRITTEN: list[tuple[Callable[[Any], str], Any, str]] = [
    (figures.error, 1.96e-6, "2.0e-6"),
    (figures.error, 0.0, "0"),
    (figures.error, 12.5, "1.2e1"),
    (figures.error, None, figures.DASH),
    (figures.bound, 1e-5, "1e-5"),
    (figures.bound, 2.5e-3, "2.5e-3"),
    (figures.number, 0.02134, "0.0213"),
    (figures.number, 7.254, "7.25"),
    (figures.number, 45.94, "45.9"),
    (figures.number, 1204.4, "1,204"),
    (figures.number, 0, "0"),
    (figures.number, None, figures.DASH),
    (figures.cosine, 0.99999716, "0.9999972"),
    (figures.cosine, None, figures.DASH),
    (figures.percent, 0.000972, "0.0972 %"),
    (figures.percent, None, figures.DASH),
    (figures.size, 512, "512 B"),
    (figures.size, 86_400_000, "86.4 MB"),
    (figures.size, 1.2e9, "1.20 GB"),
    (figures.size, None, figures.DASH),
]


@pytest.mark.parametrize(("write", "value", "written"), WRITTEN)
def test_figures_are_short(write: Callable[[Any], str], value: Any, written: str) -> None:
    assert write(value) == written
