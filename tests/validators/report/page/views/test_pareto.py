"""Accuracy against latency: which variants the front names, and what is never drawn."""

from __future__ import annotations

from typing import Any

import pytest
from made_reports import output, report, timing, variant

from vconv.types import Status
from vconv.validators.report.comparison import worst_of
from vconv.validators.report.page.scatter import Point, front
from vconv.validators.report.page.views.pareto import pareto
from vconv.validators.report.rows import VariantRow

LIMIT = {"precision": "fp32", "arithmetic": "fp32", "bounds": {"vector_relative_error": 1e-5}, "source": "s"}


def row(name: str, error: float | None, *medians: float, **values: Any) -> VariantRow:
    """Make a variant with an error of an output, none of another, and a median for each batch."""
    outputs = {"cls": output(vector_relative_error=error), "patches": output(vector_relative_error=0.0)}
    timings = [timing(2**place, median) for place, median in enumerate(medians)]
    return variant(name, *timings, outputs=outputs, limit=LIMIT, **values)


ROWS = (
    row("slow", 1e-7, 30.0, 1.0),
    row("quick", 3e-6, 10.0),
    row("beaten", 5e-6, 20.0),
    row("wrong", 1e-8, 5.0, status=Status.FAILED),
    row("reference", 0.0, 40.0, status=Status.SKIPPED),
    row("untimed", 1e-9),
)


def ranked(*names: str) -> dict[str, Any]:
    common = {"artifact": "a", "engine": "torch", "device": "cpu", "batch": 1, "interval": None}
    rows = [
        {**common, "variant": name, "rank": rank, "p50_ms": 1.0, "tied_with": []}
        for rank, name in enumerate(names, start=1)
    ]
    return {"refused": None if rows else "the machine was busy", "rows": rows, "left_out": []}


def marks(picture: str) -> tuple[int, int, int]:
    """Count the full marks, rings and crosses of a picture, each of which is in the legend as well."""
    kinds = ('class="mark ', 'class="ring ', 'class="failed-mark"')
    full, rings, arms = (picture.count(kind) for kind in kinds)
    return full // 2, rings // 2, arms // 4


def test_the_front_is_what_no_variant_that_passed_beats_in_both() -> None:
    (drawn,) = pareto(report(*ROWS, ranking=ranked("quick", "beaten", "slow")))
    assert drawn.title == "Accuracy against latency on cpu, batch 1"
    assert drawn.finding == (
        "No variant that passed is both faster and closer than quick (10.0 ms, 3.0e-6), "
        "slow (30.0 ms, 1.0e-7). 1 failed, and is crossed."
    )
    assert [(line[0], line[3], line[4], line[5]) for line in drawn.table.rows] == [
        ("wrong", "5.00", "no", "failed"),
        ("quick", "10.0", "yes", "passed"),
        ("beaten", "20.0", "no", "passed"),
        ("slow", "30.0", "yes", "passed"),
        ("reference", "40.0", "no", "skipped"),
    ]
    for picture in (drawn.wide, drawn.narrow):
        assert marks(picture) == (3, 1, 1)
        assert picture.count('class="front"') == 1
        assert "untimed" not in picture
        assert "wrong (failed)" in picture and "reference (not judged)" in picture


def test_without_a_ranking_no_front_is_drawn_and_nothing_is_named() -> None:
    (drawn,) = pareto(report(*ROWS, ranking=ranked()))
    assert drawn.finding == "Not ranked, so that no front is drawn."
    assert 'class="front"' not in drawn.wide
    assert {line[4] for line in drawn.table.rows} == {"\N{EN DASH}"}


def test_one_limit_of_all_is_drawn_and_several_are_only_in_the_table() -> None:
    (one,) = pareto(report(*ROWS, ranking=ranked("quick")))
    assert one.wide.count('class="bound"') == 1
    other = {**LIMIT, "bounds": {"vector_relative_error": 1e-2}}
    half = row("half", 1e-3, 8.0).model_copy(update={"limit": None})
    half = VariantRow.model_validate({**dict(half), "limit": other})
    (several,) = pareto(report(*ROWS, half, ranking=ranked("quick")))
    assert 'class="bound"' not in several.wide
    assert len({line[2] for line in several.table.rows}) == 2


@pytest.mark.parametrize(
    "rows",
    [(), (row("untimed", 1e-7),), (variant("nothing known", timing(1, 2.0)),)],
    ids=["no variant", "no time", "no error"],
)
def test_nothing_is_drawn_without_times_and_errors(rows: tuple[VariantRow, ...]) -> None:
    assert pareto(report(*rows)) == []


def test_each_device_has_its_own_chart_at_its_least_batch() -> None:
    there = row("there", 1e-6, 3.0, 4.0, device="npu:0")
    assert [one.title.partition(" on ")[2] for one in pareto(report(ROWS[0], there))] == [
        "cpu, batch 1",
        "npu:0, batch 1",
    ]


def test_an_error_that_is_no_number_is_not_the_least() -> None:
    broken = {"cls": output(vector_relative_error=None), "patches": output(vector_relative_error=1e-7)}
    assert worst_of("vector_relative_error", list(variant("a", outputs=broken).outputs.values())) is None
    assert worst_of("vector_relative_error", list(ROWS[1].outputs.values())) == 3e-6


def test_of_points_that_are_equally_fast_the_closest_is_on_the_front() -> None:
    points = [Point(name, *place, 0) for name, place in {"a": (1, 3), "b": (1, 2), "c": (2, 2)}.items()]
    assert [point.name for point in front(points)] == ["b"]
