"""Tables and text in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_SPECIAL = re.compile(r"([\\|<>\[\]*_`~])")


def escaped(text: str) -> str:
    """Take what others wrote, such as a file's name, as plain text: no markup and no line breaks."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    """Show text as code, whatever is in it."""
    plain = " ".join(text.split()).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall(r"`+", plain)), default=0))
    return f"{fence} {plain} {fence}" if "`" in plain else f"`{plain}`"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 0) -> str:
    """Lay out a table; nothing where it has no rows.

    Args:
        headings: of its columns.
        rows: its cells, in Markdown.
        numbers: how many columns, counted from the right, hold numbers.
    """
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if not lines:
        return ""
    words = len(headings) - numbers
    rule = "|".join(["---"] * words + ["---:"] * numbers)
    return "\n".join([f"| {' | '.join(headings)} |", f"|{rule}|", *lines])
