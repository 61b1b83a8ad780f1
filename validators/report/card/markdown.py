"""Tables and text in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_SPECIAL = re.compile(r"([\\|<>\[\]*_`~])")
_BAR = re.compile(r"(?<!\\)\|")
"""A bar that is not escaped, and would end a cell."""


def escaped(text: str) -> str:
    """Escape text that others wrote, such as a file's name: no markup and no line breaks remain."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    """Format any text as code, even if it contains backticks."""
    plain = " ".join(text.split())
    fence = "`" * (1 + max((len(run) for run in re.findall(r"`+", plain)), default=0))
    return f"{fence} {plain} {fence}" if "`" in plain else f"`{plain}`"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 0) -> str:
    """Lay out a table; empty if it has no rows.

    Args:
        headings: the headings of the columns.
        rows: the cells of each row, in Markdown; bars in them are escaped.
        numbers: the number of columns, counted from the right, that hold numbers.
    """
    safe = [[_BAR.sub(r"\|", cell) for cell in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in safe]
    if not lines:
        return ""
    words = len(headings) - numbers
    rule = "|".join(["---"] * words + ["---:"] * numbers)
    return "\n".join([f"| {' | '.join(headings)} |", f"|{rule}|", *lines])
