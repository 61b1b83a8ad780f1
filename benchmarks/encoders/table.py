"""The results of ``coverage.py`` as tables in Markdown, and in a line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from encoders import NO, OPTIMUM, TIMM, TRANSFORMERS, UNSUPPORTED, VCONV, YES
from vconv.catalog.systems import SYSTEMS

EXPORTERS = (VCONV, TRANSFORMERS, TIMM, OPTIMUM)
BEGIN, END = "<!-- coverage: begin -->", "<!-- coverage: end -->"
"""The lines of a page between which the tables are written."""
Rows = Mapping[str, Mapping[str, Mapping[str, Any]]]


def parts(document: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the names of the rows, by the title of their table."""
    return {
        "Systems of the catalog, in their true width": [f"catalog/{name}" for name in SYSTEMS],
        "Encoders that were drawn": list(document["drawn"]),
    }


def counts(rows: Rows, names: list[str], exporter: str) -> str:
    """Say how many models an exporter exports, of those that it takes."""
    cells = [rows[name][exporter] for name in names if exporter in rows.get(name, {})]
    tried = [cell for cell in cells if cell["status"] != UNSUPPORTED]
    good = sum(cell["status"] == YES for cell in tried)
    left = len(names) - len(cells)
    said = f"{good} of {len(tried)}" if tried else "none"
    return said + (f" ({left} not run)" if left else "")


def summary(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each table: how many models each exporter exports."""
    for title, names in parts(document).items():
        said = "; ".join(f"{exporter} {counts(document['rows'], names, exporter)}" for exporter in EXPORTERS)
        yield f"{title} ({len(names)}): {said}"


def cell_text(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return "not run"
    return f"{cell['status']}, {cell['seconds']:.0f} s" if "seconds" in cell else str(cell["status"])


def lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the tables, each followed by what did not work and why."""
    rows: Rows = document["rows"]
    for title, names in parts(document).items():
        yield f"### {title}"
        yield ""
        yield f"| model | {' | '.join(EXPORTERS)} |"
        yield f"|---{'|---' * len(EXPORTERS)}|"
        for name in sorted(names):
            cells = (cell_text(rows.get(name, {}).get(exporter)) for exporter in EXPORTERS)
            yield f"| `{name.removeprefix('catalog/')}` | {' | '.join(cells)} |"
        totals = (counts(rows, names, exporter) for exporter in EXPORTERS)
        yield f"| **{len(names)} models** | {' | '.join(totals)} |"
        yield ""
        for name in sorted(names):
            for exporter, cell in rows.get(name, {}).items():
                if cell["status"] == NO:
                    yield f"- `{name.removeprefix('catalog/')}`, {exporter}: {reason(cell)}"
        yield ""


def reason(cell: Mapping[str, Any]) -> str:
    """Return why an export did not work, in one line that Markdown shows as it is."""
    text = " ".join(str(cell["why"]).replace("`", "'").split())
    return f"`{text[:200]}`"


def write_tables(page: Path, document: Mapping[str, Any]) -> None:
    """Write the tables into a page, between its two marks."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text("\n".join([before + BEGIN, "", *lines(document), END + after]))
