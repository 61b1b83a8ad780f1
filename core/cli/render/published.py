"""What others have published, drawn for a terminal: never in one table with one's own figures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from vconv.cli.render.base import show, table, wrapped
from vconv.validators.report.document import PublishedRow


def published(rows: Sequence[PublishedRow]) -> None:
    """Draw figures by what they were measured on, each set of figures in a separate table."""
    if not rows:
        return
    show("")
    show("published by others, not measured here:")
    for (source, device, variant, figures), found in groupby(rows, _heading):
        wrapped(f"{variant} on {device} ({source})")
        cells = [
            [row.output or f"batch {row.batch}", *(f"{row.figures[name]:g}" for name in figures)]
            for row in found
        ]
        show(table(["of"], figures, cells))


def _heading(row: PublishedRow) -> tuple[str, str, str, tuple[str, ...]]:
    return row.source, row.device, row.variant, tuple(row.figures)
