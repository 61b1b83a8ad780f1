"""Charts as inline SVG: pure functions of their data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from vconv.validators.report.page import svg
from vconv.validators.report.page.svg import Scale

_GOLDEN = 0.618033988749895
"""The reciprocal of the golden ratio: its multiples, modulo 1, spread samples evenly and reproducibly."""

_CHARACTER, _LINE = 7.4, 19.0
"""Greatest width of a letter in a legend, and height of its lines, in pixels."""
_DODGE = 4.0
"""Pixels between the marks of series at one place, so that equal values do not hide each other."""

Draw = Callable[[float, float], str]
"""Draws a mark at a position, x and y."""


@dataclass(frozen=True)
class Frame:
    """The arguments that every chart needs.

    Args:
        identifier: an identifier that is unique in the page.
        width: the width, in pixels.
        title: the title.
        description: what the chart shows, in a sentence.
    """

    identifier: str
    width: float
    title: str
    description: str


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Args:
        name: the name of the line.
        values: one value per place on the axis; None for a missing value.
        style: the index of its colour and mark.
    """

    name: str
    values: tuple[float | None, ...]
    style: int


@dataclass(frozen=True)
class Strip:
    """The samples of one variant.

    Args:
        name: the name of the variant.
        samples: the samples, in the order of measurement.
        median: the median.
        box: the 25th, 75th and 90th percentile; None if the samples are too few for them.
        style: the index of its colour.
    """

    name: str
    samples: tuple[float, ...]
    median: float
    box: tuple[float, float, float] | None
    style: int


@dataclass(frozen=True)
class Dots:
    """One row of dots: several values of one subject.

    Args:
        name: the name of the subject.
        values: one value per series; None for a missing value.
    """

    name: str
    values: tuple[float | None, ...]


def grid(scale: Scale, draw: Callable[[float, str], str]) -> list[str]:
    """Draw something at every tick of a scale, from its position and its label."""
    return [draw(scale(value), label) for value, label in scale.ticks]


def legend(
    names: Sequence[tuple[str, Draw]], top: float, left: float, width: float
) -> tuple[list[str], float]:
    """Draw a legend, as many entries side by side as fit; return its parts and the y below it."""
    widest = max((len(name) for name, _ in names), default=0) * _CHARACTER + 48
    across = max(1, int((width - left) // widest))
    parts = []
    for place, (name, draw) in enumerate(names):
        x, y = left + widest * (place % across), top + _LINE * (place // across)
        parts += [draw(x + 11, y), svg.text(name, x + 30, y + 4)]
    return parts, top + _LINE * ((len(names) - 1) // across) + 12


def _swatch(style: int, x: float, y: float) -> str:
    """Draw a short piece of a line with its mark."""
    return svg.line(x - 11, y, x + 11, y, f"series s{style % svg.STYLES}") + svg.mark(style, x, y)


def lines(
    frame: Frame,
    places: Sequence[str],
    series: Sequence[Series],
    *,
    axes: tuple[str, str],
    bounds: Sequence[tuple[float, str]] = (),
    logarithmic: bool = True,
) -> str:
    """Draw a line chart, one line per series.

    Args:
        frame: the arguments that every chart needs.
        places: the labels under the horizontal axis.
        series: the lines, each with one value per place.
        axes: the labels of the horizontal and of the vertical axis.
        bounds: values at which a dashed line is drawn, each with its label.
        logarithmic: whether the vertical axis is logarithmic; otherwise it is linear and begins at zero.
    """
    left, right, top, height = 52.0, 14.0, 26.0, 230.0
    bottom = top + height
    values = [value for one in series for value in one.values if value is not None]
    # A logarithmic axis has no place for zero, so zero gets a separate line below the least decade.
    zero = logarithmic and 0.0 in values
    values += [value for value, _ in bounds]
    if logarithmic:
        scale = svg.decades(values, bottom - 24 * zero, top)
    else:
        scale = svg.linear(values, bottom, top, zero=True)

    def up(value: float) -> float:
        return bottom if zero and value == 0 else scale(value)

    across = frame.width - left - right
    inset = min(24.0, across / (2 * max(len(places), 1)))
    step = (across - 2 * inset) / max(1, len(places) - 1)
    columns = [left + inset + step * place for place in range(len(places))]
    # Each label gets at least 34 pixels; labels are left out to make room, but never the last.
    stride = max(1, -(-len(places) * 34 // max(1, int(across))))
    shown = {place for place in range(0, len(places), stride) if len(places) - 1 - place >= stride}
    shown.add(len(places) - 1)
    parts = [svg.text(axes[1], 0, 12, "axis")]
    for y, label in [(scale(value), label) for value, label in scale.ticks] + [(bottom, "0")] * zero:
        parts.append(svg.line(left, y, frame.width - right, y, "grid"))
        parts.append(svg.text(label, left - 8, y + 4, "tick", "end"))
    parts += [
        svg.text(name, x, bottom + 18, "tick", "middle")
        for place, (name, x) in enumerate(zip(places, columns, strict=True))
        if place in shown
    ]
    parts.append(svg.text(axes[0], left + across / 2, bottom + 37, "axis", "middle"))
    for value, label in bounds:
        parts.append(svg.line(left, up(value), frame.width - right, up(value), "bound"))
        parts.append(svg.text(label, frame.width - right - 4, up(value) - 6, "bound-label", "end"))
    for order, one in enumerate(series):
        aside = _DODGE * (order - (len(series) - 1) / 2)
        points = [
            None if value is None else (x + aside, up(value))
            for x, value in zip(columns, one.values, strict=True)
        ]
        parts.append(svg.path(points, one.style))
        parts += [svg.mark(one.style, *point, radius=3.5) for point in points if point]
    named = [(one.name, partial(_swatch, one.style)) for one in series]
    listed, height = legend(named, bottom + 62, left, frame.width)
    return svg.picture(frame.identifier, frame.width, height, frame.title, frame.description, parts + listed)


def strips(frame: Frame, rows: Sequence[Strip], axis: str) -> str:
    """Draw all samples of each variant, with the median, and the box and 90th percentile if there are any."""
    left, right, row, top = 4.0, 14.0, 58.0, 4.0
    bottom = top + row * len(rows)
    values = [sample for strip in rows for sample in strip.samples]
    wide = max(values, default=1.0) > 12 * min(values, default=1.0)
    ends = left, frame.width - right
    scale = (
        svg.decades(values, *ends) if wide else svg.linear(values, *ends, parts=4 if frame.width < 500 else 8)
    )
    parts = grid(scale, lambda x, label: svg.line(x, top, x, bottom, "grid"))
    for place, strip in enumerate(rows):
        base = top + row * place
        colour = f"s{strip.style % svg.STYLES}"
        parts.append(svg.text(strip.name, left + 4, base + 15, "name"))
        dots = "".join(
            f"M{svg.coordinate(scale(sample))} {svg.coordinate(base + 25 + 22 * (index * _GOLDEN % 1))}h0"
            for index, sample in enumerate(strip.samples)
        )
        parts.append(svg.element("path", d=dots, class_=f"samples {colour}"))
        y, middle = base + 29, scale(strip.median)
        if strip.box:
            low, high, tail = map(scale, strip.box)
            spread = max(1.5, high - low)
            parts.append(svg.element("rect", x=low, y=y, width=spread, height=14, class_=f"box {colour}"))
            parts.append(svg.line(tail, y, tail, y + 14, f"tail {colour}"))
        parts.append(svg.line(middle, y - 4, middle, y + 18, f"median {colour}"))
    parts += grid(scale, lambda x, label: svg.text(label, x, bottom + 17, "tick", anchor(x, frame.width)))
    parts.append(svg.text(axis, frame.width / 2, bottom + 36, "axis", "middle"))
    return svg.picture(frame.identifier, frame.width, bottom + 44, frame.title, frame.description, parts)


def anchor(x: float, width: float) -> str:
    """Return the text anchor that keeps a label inside the picture."""
    return "start" if x < 20 else "end" if x > width - 24 else "middle"


def bars(frame: Frame, rows: Sequence[tuple[str, float, str, int]], axis: str) -> str:
    """Draw a bar chart that begins at zero, one bar per row.

    Args:
        frame: the arguments that every chart needs.
        rows: for each bar its name, its value, the value as text, and its style.
        axis: the label of the axis.
    """
    left, right, row = 4.0, 78.0, 46.0
    scale = svg.linear([value for _, value, _, _ in rows], left, frame.width - right, zero=True)
    parts = []
    for place, (name, value, words, style) in enumerate(rows):
        base = row * place
        length = max(1.0, scale(value) - left)
        parts.append(svg.text(name, left, base + 14, "name"))
        parts.append(
            svg.element(
                "rect", x=left, y=base + 21, width=length, height=14, class_=f"bar s{style % svg.STYLES}"
            )
        )
        parts.append(svg.text(words, left + length + 7, base + 32.5, "figure"))
    bottom = row * len(rows)
    parts.append(svg.text(axis, left, bottom + 16, "axis"))
    return svg.picture(frame.identifier, frame.width, bottom + 26, frame.title, frame.description, parts)


def dots(frame: Frame, names: Sequence[str], rows: Sequence[Dots], axis: str) -> str:
    """Draw several values per row on one logarithmic axis; the first value of a row is drawn as a ring.

    Args:
        frame: the arguments that every chart needs.
        names: the names of the series, one mark each.
        rows: the rows.
        axis: the label of the axis.
    """
    left, right, row = 8.0, 14.0, 46.0
    bottom = row * len(rows) + 4
    values = [value for one in rows for value in one.values if value is not None]
    scale = svg.decades(values, left, frame.width - right)
    parts = grid(scale, lambda x, label: svg.line(x, 4, x, bottom, "grid"))
    shown: set[int] = set()
    marks: list[Draw] = [partial(svg.mark if style else svg.ring, style) for style in range(len(names))]
    for place, one in enumerate(rows):
        y = row * place + 32
        parts.append(svg.text(one.name, left - 4, y - 14, "name"))
        parts.append(svg.line(left, y, frame.width - right, y, "rail"))
        for style, value in enumerate(one.values):
            if value is not None and value > 0:
                shown.add(style)
                parts.append(marks[style](scale(value), y))
    parts += grid(scale, lambda x, label: svg.text(label, x, bottom + 16, "tick", anchor(x, frame.width)))
    parts.append(svg.text(axis, frame.width / 2, bottom + 35, "axis", "middle"))
    named = [(name, marks[style]) for style, name in enumerate(names) if style in shown]
    listed, height = legend(named, bottom + 60, left, frame.width)
    return svg.picture(frame.identifier, frame.width, height, frame.title, frame.description, parts + listed)
