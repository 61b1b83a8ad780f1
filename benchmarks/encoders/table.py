"""The results of ``coverage.py`` as tables in Markdown, and in a sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from record import write_table

from encoders import NAMES, NO, UNSUPPORTED, YES
from vconv.catalog.systems import SYSTEMS

BEGIN, END = "<!-- coverage: begin -->", "<!-- coverage: end -->"
"""The lines of a page between which the tables are written."""
CATALOG = "catalog/"
"""The first part of the names of rows that are systems of the catalog, shallow."""
_LONGEST = 200
"""Characters of a reason that are shown."""
Cell = Mapping[str, Any]
Rows = Mapping[str, Mapping[str, Cell]]


def parts(document: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the names of the rows, by the title of their table."""
    return {
        "Systems of the catalog": [CATALOG + name for name in SYSTEMS],
        "Encoders that were drawn": list(document["drawn"]),
    }


def counts(rows: Rows, names: Sequence[str], exporter: str) -> str:
    """Say how many models an exporter exports, of those that it takes and was tried on."""
    cells = [rows[name][exporter] for name in names if exporter in rows.get(name, {})]
    tried = [cell for cell in cells if cell["status"] != UNSUPPORTED]
    good, left = sum(cell["status"] == YES for cell in tried), len(names) - len(cells)
    said = f"{good} of {len(tried)}"
    return f"{said} ({left} not run)" if left else said


def summary(document: Mapping[str, Any]) -> str:
    """Return a sentence about the drawn encoders."""
    rows, drawn = document["rows"], document["drawn"]
    said = [f"{name} {counts(rows, drawn, name)}" for name in NAMES]
    return f"Of {len(drawn)} encoders that a rule draws, these are exported right: {'; '.join(said)}."


def text(document: Mapping[str, Any]) -> str:
    """Return the tables."""
    tables = (_table(document, title, names) for title, names in parts(document).items())
    return "\n".join(line for table in tables for line in table)


def _table(document: Mapping[str, Any], title: str, names: Sequence[str]) -> Iterator[str]:
    rows: Rows = document["rows"]
    run = sorted(name for name in names if name in rows)
    yield from (f"### {title}", "")
    if len(run) < len(names):
        yield from (f"{len(names) - len(run)} of {len(names)} have not been run yet.", "")
    if not run:
        return
    yield from (f"| model | {' | '.join(NAMES)} |", f"|---{'|---' * len(NAMES)}|")
    for name in run:
        cells = (_shown(rows[name].get(exporter)) for exporter in NAMES)
        yield f"| `{name.removeprefix(CATALOG)}` | {' | '.join(cells)} |"
    totals = (counts(rows, names, exporter) for exporter in NAMES)
    yield from (f"| **of {len(names)}** | {' | '.join(totals)} |", "")
    failed = [
        (name.removeprefix(CATALOG), exporter, cell)
        for name in run
        for exporter, cell in rows[name].items()
        if cell["status"] == NO
    ]
    if failed:
        yield from ("What does not work, and why:", "")
        yield from (f"- `{name}`, {exporter}: {_reason(cell)}" for name, exporter, cell in failed)
        yield ""


def _shown(cell: Cell | None) -> str:
    if cell is None:
        return "not run"
    return f"{cell['status']}, {cell['seconds']:.0f} s" if "seconds" in cell else str(cell["status"])


def _reason(cell: Cell) -> str:
    """Return why an export did not work, in one line that Markdown shows as it is."""
    return f"`{' '.join(str(cell['why']).replace('`', chr(39)).split())[:_LONGEST]}`"


def write(page: Path, document: Mapping[str, Any]) -> None:
    """Write the tables into a page, between its two marks."""
    write_table(page, BEGIN, END, text(document))
