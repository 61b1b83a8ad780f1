"""Charts, as inline SVG: pure functions of what they show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from vconv.validators.report.page import svg
from vconv.validators.report.page.svg import Scale

_GOLDEN = 0.618033988749895
"""Its multiples fill an interval evenly: samples are spread by it, the same every time."""

_CHARACTER, _LINE = 7.4, 19.0
"""Pixels that a letter of a legend takes at most, and a line of it."""
_DODGE = 4.0
"""Pixels between the marks of series at the same place, so that equal ones do not hide each other."""

Draw = Callable[[float, float], str]
"""Draws something at a place."""


@dataclass(frozen=True)
class Frame:
    """What every chart needs.

    Args:
        identifier: unlike that of any other picture of a page.
        width: in pixels.
        title: what it is.
        description: what is to be seen in it.
    """

    identifier: str
    width: float
    title: str
    description: str


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Args:
        name: what it is called.
        values: by place; None where there is none.
        style: which colour and mark.
    """

    name: str
    values: tuple[float | None, ...]
    style: int


@dataclass(frozen=True)
class Strip:
    """The samples of one variant.

    Args:
        name: what it is called.
        samples: in the order in which they were taken.
        quartiles: the 25th, 50th and 75th percentile.
        p90: the 90th percentile.
        style: which colour and mark.
    """

    name: str
    samples: tuple[float, ...]
    quartiles: tuple[float, float, float]
    p90: float
    style: int


@dataclass(frozen=True)
class Dots:
    """Several values of one thing.

    Args:
        name: what it is called.
        values: by series; None where there is none.
    """

    name: str
    values: tuple[float | None, ...]


def _grid(scale: Scale, draw: Callable[[float, str], str]) -> list[str]:
    return [draw(scale(value), label) for value, label in scale.ticks]


def _legend(
    names: Sequence[tuple[str, Draw]], top: float, left: float, width: float
) -> tuple[list[str], float]:
    """Lay out what marks and colours mean, as many side by side as there is room for; tell where it ends."""
    widest = max((len(name) for name, _ in names), default=0) * _CHARACTER + 48
    across = max(1, int((width - left) // widest))
    parts = []
    for place, (name, draw) in enumerate(names):
        x, y = left + widest * (place % across), top + _LINE * (place // across)
        parts += [draw(x + 11, y), svg.text(name, x + 30, y + 4)]
    return parts, top + _LINE * ((len(names) - 1) // across) + 12


def _swatch(style: int, x: float, y: float) -> str:
    """Draw a piece of a line with its mark."""
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
    """Draw values by place, one line a series.

    Args:
        frame: what every chart needs.
        places: what stands under the axis.
        series: one value a place each.
        axes: what the axes are called, across and up.
        bounds: values with a dashed line across each, and what it says.
        logarithmic: whether the axis up is in decades; else it begins at zero.
    """
    left, right, top, height = 52.0, 14.0, 26.0, 230.0
    bottom = top + height
    values = [value for one in series for value in one.values if value is not None]
    # A logarithm has no place for zero: it gets a separate line under the least decade.
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
    # As many labels as have 26 pixels each; the last is always there.
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
    legend, height = _legend(named, bottom + 62, left, frame.width)
    return svg.picture(frame.identifier, frame.width, height, frame.title, frame.description, parts + legend)


def strips(frame: Frame, rows: Sequence[Strip], axis: str) -> str:
    """Draw every sample of each variant, and over them the quartiles, the median and the 90th percentile."""
    left, right, row, top = 4.0, 14.0, 58.0, 4.0
    bottom = top + row * len(rows)
    values = [sample for strip in rows for sample in strip.samples]
    wide = max(values, default=1.0) > 12 * min(values, default=1.0)
    ends = left, frame.width - right
    scale = (
        svg.decades(values, *ends) if wide else svg.linear(values, *ends, parts=4 if frame.width < 500 else 8)
    )
    parts = _grid(scale, lambda x, label: svg.line(x, top, x, bottom, "grid"))
    for place, strip in enumerate(rows):
        base = top + row * place
        colour = f"s{strip.style % svg.STYLES}"
        parts.append(svg.text(strip.name, left + 4, base + 15, "name"))
        dots = "".join(
            f"M{svg.coordinate(scale(sample))} {svg.coordinate(base + 25 + 22 * (index * _GOLDEN % 1))}h0"
            for index, sample in enumerate(strip.samples)
        )
        parts.append(svg.element("path", d=dots, class_=f"samples {colour}"))
        low, middle, high = (scale(value) for value in strip.quartiles)
        y = base + 29
        parts.append(
            svg.element("rect", x=low, y=y, width=max(1.5, high - low), height=14, class_=f"box {colour}")
        )
        parts.append(svg.line(middle, y - 4, middle, y + 18, f"median {colour}"))
        parts.append(svg.line(scale(strip.p90), y, scale(strip.p90), y + 14, f"tail {colour}"))
    parts += _grid(scale, lambda x, label: svg.text(label, x, bottom + 17, "tick", _anchor(x, frame.width)))
    parts.append(svg.text(axis, frame.width / 2, bottom + 36, "axis", "middle"))
    return svg.picture(frame.identifier, frame.width, bottom + 44, frame.title, frame.description, parts)


def _anchor(x: float, width: float) -> str:
    """Keep a label inside the picture."""
    return "start" if x < 20 else "end" if x > width - 24 else "middle"


def bars(frame: Frame, rows: Sequence[tuple[str, float, str, int]], axis: str) -> str:
    """Draw one bar each, from zero.

    Args:
        frame: what every chart needs.
        rows: name, value, the same in words, and style.
        axis: what the values are.
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
    """Draw several values of each thing on one logarithmic axis; the first of them as a ring.

    Args:
        frame: what every chart needs.
        names: of the values, one mark each.
        rows: one thing each.
        axis: what the values are.
    """
    left, right, row = 8.0, 14.0, 46.0
    bottom = row * len(rows) + 4
    values = [value for one in rows for value in one.values if value is not None]
    scale = svg.decades(values, left, frame.width - right)
    parts = _grid(scale, lambda x, label: svg.line(x, 4, x, bottom, "grid"))
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
    parts += _grid(scale, lambda x, label: svg.text(label, x, bottom + 16, "tick", _anchor(x, frame.width)))
    parts.append(svg.text(axis, frame.width / 2, bottom + 35, "axis", "middle"))
    named = [(name, marks[style]) for style, name in enumerate(names) if style in shown]
    legend, height = _legend(named, bottom + 60, left, frame.width)
    return svg.picture(frame.identifier, frame.width, height, frame.title, frame.description, parts + legend)
