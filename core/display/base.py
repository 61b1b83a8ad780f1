"""What every drawing shares: printing, tables, sizes, the colours of a status."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

Document = Mapping[str, Any]
COLOURS = {"passed": "green", "failed": "bold red", "skipped": "yellow", "incomplete": "yellow"}
PIPED_WIDTH = 200
"""Columns where standard output is no terminal: nothing is folded that a program may look for."""


def show(*parts: Table | str, markup: bool = True) -> None:
    """Print to standard output, without the spaces that fill up lines."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
    with console.capture() as captured:
        for part in parts:
            console.print(part, markup=markup, soft_wrap=isinstance(part, str))
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def wrapped(*texts: str) -> None:
    """Print texts in lines of at most 80 characters."""
    for text in texts:
        for line in textwrap.wrap(text, 80, break_on_hyphens=False):
            show(line, markup=False)


def coloured(status: str) -> str:
    """Give a status its colour."""
    return f"[{COLOURS[status]}]{status}[/]"


def plain(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Lay out rows without lines; without a heading where there are no columns."""
    drawn = Table(box=None, pad_edge=False, show_header=bool(columns))
    for column in columns or ("", ""):
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*map(escape, row))
    return drawn


def sized(nbytes: int) -> str:
    """Say how large something is."""
    return f"{nbytes / 1e6:.1f} MB" if nbytes >= 1e5 else f"{nbytes / 1e3:.1f} kB"
