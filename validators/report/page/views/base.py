"""The parts of every section of a page: tables, and charts with their figures in a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vconv.validators.report.page.charts import Frame

WIDE, NARROW = 960.0, 328.0
"""Width of a chart on a screen, and on a phone of 360 pixels, in pixels: each chart is drawn for both."""

TEXT, NUMBER, STATUS, CODE = "text", "number", "state", "code"
"""Kinds of content of a column."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        name: its heading.
        kind: the kind of its content.
    """

    name: str
    kind: str = TEXT


@dataclass(frozen=True)
class Table:
    """A table; the first cell of each row is its heading.

    Args:
        caption: its caption.
        columns: the columns, in order.
        rows: the rows, each with one cell per column.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"table {self.caption!r} has rows of other lengths than its columns")


@dataclass(frozen=True)
class Chart:
    """A chart, with its main finding and its figures.

    Args:
        title: its title.
        finding: what the chart shows, in a sentence.
        wide: the picture for a screen and for paper, as SVG.
        narrow: the picture for a phone, as SVG.
        table: its figures.
    """

    title: str
    finding: str
    wide: str
    narrow: str
    table: Table


def chart(identifier: str, title: str, finding: str, draw: Callable[[Frame], str], table: Table) -> Chart:
    """Draw a chart for screens and for phones.

    Args:
        identifier: an identifier that is unique in the page.
        title: its title.
        finding: what the chart shows, in a sentence.
        draw: draws the chart in a frame.
        table: its figures.
    """
    wide = draw(Frame(f"{identifier}-wide", WIDE, title, finding))
    narrow = draw(Frame(f"{identifier}-narrow", NARROW, title, finding))
    return Chart(title, finding, wide, narrow, table)


def columns(*named: str, **kinds: str) -> tuple[Column, ...]:
    """Return columns: text columns first, then those of ``name=kind``; an underscore stands for a space."""
    plain = [Column(name) for name in named]
    return (*plain, *(Column(name.replace("_", " "), kind) for name, kind in kinds.items()))


def numbers(*named: str) -> tuple[Column, ...]:
    """Return columns of numbers with these headings."""
    return tuple(Column(name, NUMBER) for name in named)
