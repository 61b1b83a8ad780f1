"""What every section of a page is made of: tables, and charts with their figures in a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vconv.validators.report.page.charts import Frame

WIDE, NARROW = 960.0, 328.0
"""Pixels that a chart has on a screen, and on a phone of 360: each chart is drawn for both."""

TEXT, NUMBER, STATUS, CODE = "text", "number", "state", "code"
"""What a column of a table holds."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        name: its heading.
        kind: what it holds.
    """

    name: str
    kind: str = TEXT


@dataclass(frozen=True)
class Table:
    """A table; the first cell of each row is its heading.

    Args:
        caption: what it shows.
        columns: in order.
        rows: a cell a column each.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"table {self.caption!r} has rows of other lengths than its columns")


@dataclass(frozen=True)
class Chart:
    """A chart, with what is to be seen in it and its figures.

    Args:
        title: what it is.
        finding: what is to be seen in it, in a sentence.
        wide: the picture for a screen and for paper, as SVG.
        narrow: the same for a phone.
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
        identifier: unlike that of any other chart of the page.
        title: what it is.
        finding: what is to be seen in it.
        draw: draws it.
        table: its figures.
    """
    wide = draw(Frame(f"{identifier}-wide", WIDE, title, finding))
    narrow = draw(Frame(f"{identifier}-narrow", NARROW, title, finding))
    return Chart(title, finding, wide, narrow, table)


def columns(*named: str, **kinds: str) -> tuple[Column, ...]:
    """Name columns: plain ones of text, then ``name=kind``; an underscore stands for a space."""
    plain = [Column(name) for name in named]
    return (*plain, *(Column(name.replace("_", " "), kind) for name, kind in kinds.items()))


def numbers(*named: str) -> tuple[Column, ...]:
    """Name columns of numbers."""
    return tuple(Column(name, NUMBER) for name in named)
