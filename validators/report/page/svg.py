"""Pieces of charts in SVG: elements, scales and axes. Colours are classes that the page's style defines.

matplotlib writes SVG too, but with fixed colours, which cannot follow a page's light and dark modes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

STYLES = 8
"""Number of series that colours and marks distinguish."""
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def coordinate(value: float) -> str:
    """Format a coordinate, rounded to a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0")


def element(tag: str, content: str = "", **attributes: str | float) -> str:
    """Return an element.

    Args:
        tag: its name.
        content: its content, in SVG.
        attributes: its attributes; in a name, a final underscore is removed, others become hyphens.
    """
    named = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}
    written = "".join(
        f' {key}="{escape(coordinate(value) if isinstance(value, (int, float)) else value)}"'
        for key, value in named.items()
    )
    return f"<{tag}{written}>{content}</{tag}>" if content else f"<{tag}{written}/>"


def text(content: str, x: float, y: float, kind: str = "label", anchor: str = "start") -> str:
    """Return a line of text."""
    return element("text", escape(content), x=x, y=y, class_=kind, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """Draw a straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


_MARKS = (
    "M{l} {y}a{r} {r} 0 1 0 {d} 0a{r} {r} 0 1 0 -{d} 0Z",
    "M{l} {t}h{d}v{d}h-{d}Z",
    "M{x} {t}L{e} {b}L{l} {b}Z",
    "M{x} {t}L{e} {y}L{x} {b}L{l} {y}Z",
)
"""Paths of the marks: circle, square, triangle, diamond."""


def mark(style: int, x: float, y: float, radius: float = 4.0) -> str:
    """Draw the mark of a series; the fifth to the eighth style repeat the marks of the first four, hollow."""
    edges = {"l": x - radius, "e": x + radius, "t": y - radius, "b": y + radius}
    places = {"x": x, "y": y, "r": radius, "d": 2 * radius, **edges}
    path = _MARKS[style % len(_MARKS)].format(**{key: coordinate(value) for key, value in places.items()})
    hollow = " hollow" * (style % STYLES >= len(_MARKS))
    return element("path", d=path, class_=f"mark s{style % STYLES}{hollow}")


def ring(style: int, x: float, y: float) -> str:
    """Draw a ring that is large enough for a mark inside."""
    return element("circle", cx=x, cy=y, r=8, class_=f"ring s{style % STYLES}")


def path(points: Iterable[tuple[float, float] | None], style: int) -> str:
    """Draw a line through points; None interrupts the line."""
    drawn, lifted = [], True
    for point in points:
        if point is not None:
            drawn.append(f"{'M' if lifted else 'L'}{coordinate(point[0])} {coordinate(point[1])}")
        lifted = point is None
    return element("path", d="".join(drawn), class_=f"series s{style % STYLES}") if drawn else ""


def picture(
    identifier: str, width: float, height: float, title: str, description: str, parts: Iterable[str]
) -> str:
    """Combine parts into one picture with a title and a description in words.

    Args:
        identifier: an identifier that is unique in the page.
        width: the width, in pixels.
        height: the height, in pixels.
        title: the title.
        description: what the picture shows, in a sentence.
        parts: the content, in SVG.
    """
    told = element("title", escape(title), id=f"{identifier}-title")
    told += element("desc", escape(description), id=f"{identifier}-desc")
    return element(
        "svg",
        told + "".join(parts),
        role="img",
        aria_labelledby=f"{identifier}-title {identifier}-desc",
        viewBox=f"0 0 {coordinate(width)} {coordinate(height)}",
        width=width,
        height=height,
    )


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic scale that maps values to pixels.

    Args:
        low: the value at the start.
        high: the value at the end.
        start: the position of the start, in pixels.
        end: the position of the end, in pixels.
        ticks: values, each with its label.
        logarithmic: whether the scale is logarithmic.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[tuple[float, str], ...]
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Return the position of a value; a value beyond an end gets the position of that end."""
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log10(low), math.log10(high), math.log10(max(value, low))
        share = min(1.0, max(0.0, (value - low) / (high - low)))
        return self.start + share * (self.end - self.start)


def decades(values: Iterable[float], start: float, end: float) -> Scale:
    """Make a logarithmic scale of whole decades that contains the positive values."""
    found = [value for value in values if value > 0] or [1.0]
    low, high = math.floor(math.log10(min(found))), math.ceil(math.log10(max(found)))
    high = max(high, low + 1)
    step = max(1, math.ceil((high - low) / 6))
    ticks = tuple((10.0**power, f"10{str(power).translate(_RAISED)}") for power in range(low, high + 1, step))
    return Scale(10.0**low, 10.0**high, start, end, ticks, logarithmic=True)


def linear(values: Sequence[float], start: float, end: float, parts: int = 5, zero: bool = False) -> Scale:
    """Make a linear scale with round ticks that contains the values.

    Args:
        values: the values.
        start: the position of the start, in pixels.
        end: the position of the end, in pixels.
        parts: the approximate number of intervals between ticks.
        zero: whether the scale begins at zero.
    """
    low, high = (0.0 if zero else min(values, default=0.0)), max(values, default=1.0)
    span = (high - low) or abs(high) or 1.0
    rough = span / parts
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough)
    first, last = (
        math.floor(low / step + 1e-9),
        max(math.ceil(high / step - 1e-9), math.floor(low / step) + 1),
    )
    digits = max(0, -math.floor(math.log10(step)) + (step / unit == 2.5))
    ticks = tuple((place * step, f"{place * step:.{digits}f}") for place in range(first, last + 1))
    return Scale(first * step, last * step, start, end, ticks)
