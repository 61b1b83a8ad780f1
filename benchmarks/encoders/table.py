"""The results of ``coverage.py`` as tables in Markdown, and in a sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from encoders import NAMES, NO, UNSUPPORTED, VCONV, YES
from vconv.catalog.systems import SYSTEMS

BEGIN, END = "<!-- coverage: begin -->", "<!-- coverage: end -->"
"""The lines of a page between which the tables are written."""
CATALOG = "catalog/"
"""The first part of the names of rows that are systems of the catalog, shallow."""
_LONGEST = 160
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
    """Return a sentence about the drawn encoders and the catalog."""
    rows = document["rows"]
    catalog, drawn = parts(document).values()
    others = ", ".join(f"{name} {counts(rows, drawn, name)}" for name in NAMES if name != VCONV)
    return (
        f"Of encoders that a rule draws, vconv exports {counts(rows, drawn, VCONV)}, {others}; "
        f"of the catalog, vconv exports {counts(rows, catalog, VCONV)}."
    )


def text(document: Mapping[str, Any]) -> str:
    """Return the tables."""
    return "\n".join(
        line for title, names in parts(document).items() for line in _table(document, title, names)
    )


def _table(document: Mapping[str, Any], title: str, names: Sequence[str]) -> Iterator[str]:
    rows: Rows = document["rows"]
    yield from (f"### {title}", "", f"| model | {' | '.join(NAMES)} |", f"|---{'|---' * len(NAMES)}|")
    for name in sorted(names):
        cells = (_shown(rows.get(name, {}).get(exporter)) for exporter in NAMES)
        yield f"| `{name.removeprefix(CATALOG)}` | {' | '.join(cells)} |"
    totals = (counts(rows, names, exporter) for exporter in NAMES)
    yield from (f"| **all {len(names)}** | {' | '.join(totals)} |", "")
    failed = [
        (name.removeprefix(CATALOG), exporter, cell)
        for name in sorted(names)
        for exporter, cell in rows.get(name, {}).items()
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
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{text(document)}\n{END}{rest.partition(END)[2]}")
