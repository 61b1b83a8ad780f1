"""A bisection and a self-test, drawn for a terminal."""

from __future__ import annotations

import math

from rich import box
from rich.markup import escape
from rich.table import Table

from vconv.display.base import Document, coloured, plain, show, wrapped
from vconv.types import weights_named

BAR_DECADES = (-9.0, 0.0)
"""Powers of ten between which a distance is drawn as a bar of :data:`BAR_WIDTH` characters."""
BAR_WIDTH = 27
SHOWN_OPERATORS = 8


def _bar(value: float | None) -> str:
    """Draw a distance on a logarithmic scale; what JSON cannot hold, such as infinity, fills it."""
    low, high = BAR_DECADES
    power = high if value is None else math.log10(max(value, 10**low))
    return "█" * round(BAR_WIDTH * (min(power, high) - low) / (high - low))


def selftested(document: Document) -> None:
    """Draw what became of each fault that was made on purpose."""
    for artifact in document["artifacts"]:
        show(artifact, markup=False)
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for column in ("fault", "class", "caught in"):
        drawn.add_column(column, overflow="fold")
    rows: dict[str, list[Document]] = {}
    for row in document["faults"]:
        rows.setdefault(row["fault"], []).append(row)
    for fault, tried in rows.items():
        caught = sum(row["caught"] and row["class"] == row["expected"] for row in tried)
        named = ", ".join(dict.fromkeys(row["class"] or "-" for row in tried))
        drawn.add_row(escape(fault), escape(named), f"{caught} of {len(tried)}")
    show(drawn)
    for row in document["faults"]:
        if not row["caught"] or row["class"] != row["expected"]:
            named = f"named {row['class'] or 'nothing'}, not {row['expected']}"
            what = named if row["caught"] else "NOT CAUGHT" if row["changed"] else "it changed nothing"
            show(f"{row['artifact']}: {row['fault']}: {what}", markup=False)
    for alarm in document["alarms"]:
        found = ", ".join((*alarm["failed_checks"], *alarm["failed_variants"])) or alarm["status"]
        show(f"false alarm: {alarm['artifact']}, clean run {alarm['run'] + 1}: {found}", markup=False)
    left_out: dict[str, list[str]] = {}
    for row in document["lacking"]:
        left_out.setdefault(f"{row['fault']} ({row['reason']})", []).append(row["artifact"])
    for what, names in left_out.items():
        show(f"not made: {what}: {', '.join(names)}", markup=False)
    clean = f"clean runs: {document['clean_runs']}, false alarms: {document['false_alarms']}"
    show(clean if document["clean_runs"] else "no clean run was made: false alarms were not looked for")
    show(coloured(document["status"]))


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def bisected(document: Document) -> None:
    """Draw where a variant departs: error against depth, and the operators of the worst stage."""
    weights = weights_named(document["weights"], document["synthetic"])
    show(f"{document['artifact']}: weights {weights}", markup=False)
    reference = document["reference"]
    show(f"reference: {reference['name']}, fp32 on cpu", markup=False)
    for note in document["notes"]:
        wrapped(f"note: {note}")
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    drawn.add_column("stage (* worst)", no_wrap=True)
    for column in ("of its own", "in all"):
        drawn.add_column(column, justify="right", no_wrap=True)
    drawn.add_column("in all, from 1e-9 to 1", no_wrap=True)
    for row in document["stages"]:
        worst = row["stage"] == document["worst_stage"]
        style = "bold" if worst else ""
        drawn.add_row(
            row["stage"] + " *" * worst,
            _figure(row["own"]),
            _figure(row["total"]),
            _bar(row["total"]),
            style=style,
        )
    show(drawn)
    departing = [row for row in document["operators"] if not row["agrees"]]
    operators = departing[:SHOWN_OPERATORS]
    if operators:
        show(f"operators of {document['worst_stage']} that depart, in order:", markup=False)
        columns = ("operator", "node", "error", "nearest in the reference")
        show(
            plain(
                columns,
                [
                    (row["operator"], row["node"], _figure(row["error"]), row["counterpart"] or "nothing")
                    for row in operators
                ],
            )
        )
        if len(departing) > SHOWN_OPERATORS:
            show(f"and {len(departing) - SHOWN_OPERATORS} more, in the report", markup=False)
    wrapped(document["sentence"])
    show(f"picture: {document['picture']}", markup=False)
    show(coloured(document["status"]))
