"""Draws figures that others published, for a terminal; never in one table with figures measured here."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from vconv.cli.render.base import show, table, wrapped
from vconv.validators.report.document import PublishedRow


def published(rows: Sequence[PublishedRow]) -> None:
    """Draw published figures, one table for each source, device, variant and set of figures."""
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
