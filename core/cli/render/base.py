"""Shared drawing functions: printing, tables, folding, sizes, and the colours of a status."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from vconv.cli.terminal import WIDTH, takes_colours
from vconv.printable import printable

Document = Mapping[str, Any]
COLOURS = {
    **{"passed": "green", "failed": "red", "skipped": "yellow", "incomplete": "yellow"},
    **{
        "ok": "green",
        "problem": "red",
        "problems": "red",
        "note": "yellow",
        "missing": "red",
        "altered": "red",
        "warning": "yellow",
    },
}
"""The colours of status words. Only these words are coloured, so that no information needs colours."""
GAP = 2
"""Columns between the cells of a table without lines."""
NARROWEST = 12
"""The smallest width of a column of names."""
HANG = "  "
"""How the lines of a text after the first begin."""


def show(*parts: RenderableType) -> None:
    """Print to standard output in lines of :data:`WIDTH` columns, without trailing spaces."""
    colours = takes_colours(sys.stdout, os.environ)
    console = Console(
        highlight=False,
        width=WIDTH,
        force_terminal=colours,
        color_system="standard" if colours else None,
    )
    with console.capture() as captured:
        for part in parts:
            width = max(WIDTH, console.measure(part).minimum) if isinstance(part, Table) else None
            console.print(_Printable(part), markup=False, emoji=False, width=width, soft_wrap=not width)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


@dataclass(frozen=True)
class _Printable:
    """Something to draw, of which a terminal shows every character and obeys none."""

    part: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it; see rich."""
        part = Text(self.part) if isinstance(self.part, str) else self.part
        for segment in console.render(part, options):
            yield Segment(printable(segment.text), segment.style)


def folded(text: str, width: int = WIDTH, hang: str = HANG) -> list[str]:
    """Break a text into lines: between words, and inside a long word after a ``-``, ``_``, ``.`` or ``/``.

    Args:
        text: one line.
        width: the greatest width of a line, in columns.
        hang: the text with which every line after the first begins.
    """
    words = text.lstrip()
    indent = text[: len(text) - len(words)]
    lines = textwrap.wrap(
        words,
        width,
        initial_indent=indent,
        subsequent_indent=indent + hang,
        break_on_hyphens=False,
        break_long_words=False,
    )
    return [piece for line in lines for piece in _pieces(line, width, indent + hang)] or [""]


def _pieces(line: str, width: int, hang: str) -> Iterable[str]:
    while len(line) > width:
        stops = [stop.end() for stop in re.finditer(r"[-_./]", line[:width])]
        cut = max((stop for stop in stops if stop > len(hang)), default=width)
        yield line[:cut]
        line = hang + line[cut:]
    yield line


def wrapped(*texts: str) -> None:
    """Print texts in lines of at most :data:`WIDTH` columns."""
    for text in texts:
        show(*folded(text))


def marked(status: str, text: str) -> None:
    """Print a status in its colour, followed by a text about it."""
    first, *others = folded(f"{status}: {text}")
    show(Text.assemble(coloured(status), first[len(status) :]), *others)


def coloured(status: str) -> Text:
    """Return a status in its colour; a word without one, such as *reference*, is plain."""
    return Text(status, COLOURS.get(status, ""))


def dim(text: str) -> Text:
    """Return a text in the style for less important text."""
    return Text(text, "dim")


@dataclass(frozen=True)
class FoldedText:
    """A cell of a table: a name, which may be folded at its punctuation, or a figure, which may not.

    Args:
        text: the name or figure.
        style: the style of the text.
        whole: whether the text stays on one line.
    """

    text: str
    style: str = ""
    whole: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Fit the text into the column; see rich."""
        for line in [self.text] if self.whole else folded(self.text, options.max_width, hang=" "):
            yield Text(line, self.style)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Return the smallest and the full width of the text; see rich."""
        longest = len(self.text)
        return Measurement(longest if self.whole else min(longest, NARROWEST), longest)


Cell = str | Text | FoldedText


def table(names: Sequence[str], figures: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Table:
    """Lay out rows under headings: columns of names, then columns of figures, which are never folded or cut.

    Args:
        names: the headings of the columns of names.
        figures: the headings of the columns of figures; ``<`` at the start aligns a column to the left, such
            as a status.
        rows: the cells; a string is a name or a figure by its column, and a ``Text`` is never folded.
    """
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for name in names:
        drawn.add_column(name, overflow="fold")
    for figure in figures:
        drawn.add_column(figure.lstrip("<"), justify="left" if figure[:1] == "<" else "right", no_wrap=True)
    for row in rows:
        drawn.add_row(
            *(
                FoldedText(cell, whole=place >= len(names)) if isinstance(cell, str) else cell
                for place, cell in enumerate(row)
            )
        )
    return drawn


def pairs(rows: Iterable[tuple[str, Cell]]) -> Table:
    """Lay out pairs of a title, dimmed, and a text beside it."""
    drawn = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), show_header=False)
    drawn.add_column(no_wrap=True)
    drawn.add_column(overflow="fold")
    for title, said in rows:
        drawn.add_row(dim(title), FoldedText(said) if isinstance(said, str) else said)
    return drawn


def sized(nbytes: int) -> str:
    """Format a size in bytes as kB, MB or GB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if nbytes >= size:
            return f"{nbytes / size:.1f} {unit}"
    return f"{nbytes / 1e3:.1f} kB"
