from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import pytest

from vconv.validators.report.page import charts, svg
from vconv.validators.report.page.charts import Dots, Frame, Series, Strip
from vconv.validators.report.page.scatter import CROSS, RING, Point, scatter

FRAME = Frame("a-chart", 400.0, "a <title>", "what & where")


def a_line(frame: Frame) -> str:
    series = [Series("one <b>", (1e-7, 1e-6, None, 1e-3), 0), Series("two", (0.0, 2e-6, 3e-6, 4e-6), 1)]
    bounds = [(1e-5, "limit")]
    return charts.lines(frame, ["emb.", "0", "1", "head"], series, axes=("depth", "error"), bounds=bounds)


def a_throughput(frame: Frame) -> str:
    series = [Series("one", (10.0, 18.0), 0), Series("two", (5.0, None), 9)]
    return charts.lines(frame, ["1", "8"], series, axes=("batch", "images/s"), logarithmic=False)


def a_strip(frame: Frame) -> str:
    return charts.strips(frame, [Strip("one", (3.0, 4.0, 5.0, 9.0), 4.5, (3.75, 6.0, 7.8), 0)], "ms")


def some_bars(frame: Frame) -> str:
    return charts.bars(frame, [("one", 10.0, "10.0", 0), ("two", 5.0, "5.00", 1)], "images/s")


def some_dots(frame: Frame) -> str:
    rows = [Dots("one", (1e-3, 9e-4, None, 1e-6)), Dots("two", (2e-4, None, None, 0.0))]
    return charts.dots(frame, ["all", "gelu", "matmul", "rest"], rows, "error")


def some_points(frame: Frame) -> str:
    points = [
        Point("one <b>", 10.0, 1e-6, 0),
        Point("two", 20.0, 0.0, 9, RING),
        Point("bad", 30.0, 0.1, 2, CROSS),
    ]
    return scatter(frame, points, points[:1], axes=("ms", "error"), bound=(1e-5, "limit"))


CHARTS = (a_line, a_throughput, a_strip, some_bars, some_dots, some_points)


def parsed(drawn: str) -> ElementTree.Element:
    return ElementTree.fromstring(drawn)


def words(drawn: str) -> list[str]:
    return [node.text or "" for node in parsed(drawn).iter("text")]


def marks(drawn: str, style: int) -> list[tuple[float, float]]:
    """Return the centres of a series' marks, in the order in which they were drawn, legend last."""
    found = []
    for node in parsed(drawn).iter("path"):
        if re.fullmatch(rf"mark s{style}( hollow)?", node.get("class", "")):
            places = [float(one) for one in re.findall(r"-?\d+\.?\d*", node.get("d", ""))]
            found.append((places[0], places[1]))
    return found


@pytest.mark.parametrize("draw", CHARTS)
@pytest.mark.parametrize("width", [308.0, 960.0])
def test_a_chart_says_what_it_is_and_keeps_inside_its_width(
    draw: Callable[[Frame], str], width: float
) -> None:
    frame = Frame("a-chart", width, FRAME.title, FRAME.description)
    root = parsed(draw(frame))
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == "a-chart-title a-chart-desc"
    title, description = root[0], root[1]
    assert (title.tag, title.get("id"), title.text) == ("title", "a-chart-title", "a <title>")
    assert (description.tag, description.get("id"), description.text) == (
        "desc",
        "a-chart-desc",
        "what & where",
    )
    height = float(root.get("height", "0"))
    assert root.get("viewBox") == f"0 0 {svg.coordinate(width)} {svg.coordinate(height)}"
    for node in root.iter():
        for name, most in (("x", width), ("x1", width), ("x2", width), ("y", height), ("y2", height)):
            if node.get(name) is not None:
                assert 0 <= float(node.get(name, "")) <= most, (node.tag, node.attrib)


@pytest.mark.parametrize("draw", CHARTS)
def test_the_same_figures_give_the_same_chart(draw: Callable[[Frame], str]) -> None:
    assert draw(FRAME) == draw(FRAME)


@pytest.mark.parametrize("draw", CHARTS)
def test_colours_are_classes_that_follow_the_pages_scheme(draw: Callable[[Frame], str]) -> None:
    drawn = draw(FRAME)
    assert "fill=" not in drawn and "stroke=" not in drawn and "style=" not in drawn


def test_a_line_has_a_mark_for_each_value_and_breaks_where_there_is_none() -> None:
    drawn = a_line(FRAME)
    assert len(marks(drawn, 0)) == 3 + 1 and len(marks(drawn, 1)) == 4 + 1
    (first, _) = (
        node.get("d", "") for node in parsed(drawn).iter("path") if "series" in node.get("class", "")
    )
    assert (first.count("M"), first.count("L")) == (2, 1)
    assert {"emb.", "0", "1", "head", "depth", "error", "limit", "one <b>", "two"} <= set(words(drawn))


def test_greater_errors_stand_higher_and_zero_on_a_line_of_its_own_below() -> None:
    drawn = a_line(FRAME)
    heights = [y for _, y in marks(drawn, 0)[:3]]
    assert heights == sorted(heights, reverse=True)
    zero = marks(drawn, 1)[0][1]
    assert zero > max(heights)
    decades = [node for node in parsed(drawn).iter("text") if node.get("class") == "tick"]
    assert [node.text for node in decades[:6]] == ["10⁻⁷", "10⁻⁶", "10⁻⁵", "10⁻⁴", "10⁻³", "0"]


def test_steps_of_a_logarithmic_scale_are_equal_for_equal_ratios() -> None:
    scale = svg.decades([2e-7, 3e-4], 0.0, 400.0)
    assert (scale.low, scale.high) == (pytest.approx(1e-7), pytest.approx(1e-3))
    assert scale(1e-5) == pytest.approx(200.0) and scale(1e-9) == 0.0 and scale(1.0) == 400.0


@pytest.mark.parametrize(
    ("values", "zero", "labels"),
    [
        ([99.0, 171.0], False, ["80", "100", "120", "140", "160", "180"]),
        ([0.0, 10.0], True, ["0", "2", "4", "6", "8", "10"]),
        ([0.11, 0.14], False, ["0.11", "0.12", "0.13", "0.14"]),
        ([5.0, 5.0], False, ["5", "6"]),
    ],
)
def test_a_linear_scale_has_round_ticks_around_its_values(
    values: list[float], zero: bool, labels: list[str]
) -> None:
    scale = svg.linear(values, 0.0, 100.0, zero=zero)
    assert [label for _, label in scale.ticks] == labels
    assert scale.low <= min(values) and scale.high >= max(values)


def test_a_strip_has_every_sample_and_its_median_between_the_quartiles() -> None:
    drawn = parsed(a_strip(FRAME))
    (samples,) = (node for node in drawn.iter("path") if "samples" in node.get("class", ""))
    assert samples.get("d", "").count("h0") == 4
    (box,) = (node for node in drawn.iter("rect"))
    (median,) = (node for node in drawn.iter("line") if "median" in node.get("class", ""))
    left, width = float(box.get("x", "")), float(box.get("width", ""))
    assert left < float(median.get("x1", "")) < left + width


def test_a_strip_of_few_samples_has_its_dots_and_median_and_neither_box_nor_tail() -> None:
    drawn = parsed(charts.strips(FRAME, [Strip("one", (3.0, 4.0, 5.0, 9.0), 4.5, None, 0)], "ms"))
    kinds = {node.get("class", "").split()[0] for node in drawn.iter() if node.get("class")}
    assert {"samples", "median"} <= kinds and not kinds & {"box", "tail"}


def test_bars_are_as_long_as_their_values() -> None:
    long, short = (float(node.get("width", "")) for node in parsed(some_bars(FRAME)).iter("rect"))
    assert long / short == pytest.approx(2.0, rel=1e-2)
    assert {"10.0", "5.00"} <= set(words(some_bars(FRAME)))


def test_dots_of_causes_that_changed_nothing_are_left_out_of_the_legend_too() -> None:
    drawn = some_dots(FRAME)
    assert "matmul" not in words(drawn) and {"all", "gelu", "rest"} <= set(words(drawn))
    rings = [node for node in parsed(drawn).iter("circle")]
    assert len(rings) == 2 + 1


def test_marks_of_eight_series_differ() -> None:
    drawn = {re.sub(r' class="mark s\d', ' class="', svg.mark(style, 10, 10)) for style in range(8)}
    assert len(drawn) == 8
