"""A chart of two figures of each subject, both the better the smaller, with the front of the best."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from vconv.validators.report.page import svg
from vconv.validators.report.page.charts import Draw, Frame, anchor, grid, legend
from vconv.validators.report.page.svg import Scale

MARK, RING, CROSS = "mark", "ring", "cross"
"""How a point is drawn: a passed variant, one that is not judged, a failed one."""
_WIDE = 12
"""The quotient of the greatest and the least value from which on an axis is logarithmic."""


@dataclass(frozen=True)
class Point:
    """One subject.

    Args:
        name: its name in the legend.
        across: its figure on the horizontal axis, which is positive.
        up: its figure on the vertical, logarithmic axis; zero has its own line at the bottom.
        style: the index of its colour and mark.
        form: how it is drawn: :data:`MARK`, :data:`RING` or :data:`CROSS`.
    """

    name: str
    across: float
    up: float
    style: int
    form: str = MARK


def front(points: Iterable[Point]) -> list[Point]:
    """Return the points that no other point beats in both figures, from left to right: the Pareto front."""
    found: list[Point] = []
    for point in sorted(points, key=lambda one: (one.across, one.up)):
        if not found or point.up < found[-1].up:
            found.append(point)
    return found


def scatter(
    frame: Frame,
    points: Sequence[Point],
    best: Sequence[Point],
    *,
    axes: tuple[str, str],
    bound: tuple[float, str] | None = None,
) -> str:
    """Draw points, each with the number that it has in the legend.

    Args:
        frame: the arguments that every chart needs.
        points: the points.
        best: those of the front, from left to right, which a stepped line joins; empty for no line.
        axes: the labels of the horizontal and of the vertical axis.
        bound: a value at which a dashed horizontal line is drawn, and its label.
    """
    left, right, top, height = 52.0, 22.0, 26.0, 250.0
    bottom, edge = top + height, frame.width - right
    heights = [point.up for point in points] + ([bound[0]] if bound else [])
    zero = any(value == 0 for value in heights)
    rising = svg.decades(heights, bottom - 24 * zero, top)
    widths = [point.across for point in points]
    wide = max(widths) > _WIDE * min(widths)
    running = (
        svg.decades(widths, left, edge)
        if wide
        else svg.linear(widths, left, edge, parts=4 if frame.width < 500 else 8)
    )

    def place(point: Point) -> tuple[float, float]:
        return running(point.across), rising(point.up) if point.up else bottom

    parts = [svg.text(axes[1], 0, 12, "axis"), *_axes(running, rising, zero, (left, edge, top, bottom))]
    parts += grid(running, lambda x, label: svg.text(label, x, bottom + 18, "tick", anchor(x, frame.width)))
    parts.append(svg.text(axes[0], (left + edge) / 2, bottom + 37, "axis", "middle"))
    if bound:
        parts.append(svg.line(left, rising(bound[0]), edge, rising(bound[0]), "bound"))
        parts.append(svg.text(bound[1], edge - 4, rising(bound[0]) - 6, "bound-label", "end"))
    if best:
        parts.append(_stepped([place(point) for point in best], edge))
    forms: list[tuple[str, Draw]] = []
    for number, point in enumerate(points, start=1):
        draw = partial(_point, point)
        x, y = place(point)
        parts += [draw(x, y), svg.text(str(number), x + 8, y - 7, "tick")]
        forms.append((f"{number} {point.name}", draw))
    listed, below = legend(forms, bottom + 62, left, frame.width)
    return svg.picture(frame.identifier, frame.width, below, frame.title, frame.description, parts + listed)


def _axes(running: Scale, rising: Scale, zero: bool, box: tuple[float, float, float, float]) -> list[str]:
    left, edge, top, bottom = box
    levels = [(rising(value), label) for value, label in rising.ticks] + [(bottom, "0")] * zero
    parts = [svg.line(left, y, edge, y, "grid") for y, _ in levels]
    parts += [svg.text(label, left - 8, y + 4, "tick", "end") for y, label in levels]
    return parts + grid(running, lambda x, label: svg.line(x, top, x, bottom, "grid"))


def _stepped(corners: Sequence[tuple[float, float]], edge: float) -> str:
    """Draw the front: what is right of it and above it is beaten by a point of it."""
    (x, y), *others = corners
    steps = [f"M{svg.coordinate(x)} {svg.coordinate(y)}"]
    steps += [f"H{svg.coordinate(x)}V{svg.coordinate(y)}" for x, y in others]
    return svg.element("path", d="".join(steps) + f"H{svg.coordinate(edge)}", class_="front")


def _point(point: Point, x: float, y: float) -> str:
    if point.form == CROSS:
        arms = (svg.line(x - 5, y - side * 5, x + 5, y + side * 5, "failed-mark") for side in (1, -1))
        return "".join(arms)
    return (svg.ring if point.form == RING else svg.mark)(point.style, x, y)
