"""Draws a bisection and a self-test for a terminal."""

from __future__ import annotations

import math

from vconv.cli.render.base import Cell, Document, FoldedText, coloured, marked, pairs, show, table, wrapped
from vconv.runtime.engines.table import simulates
from vconv.types import weights_named
from vconv.validators.report.bisection import BisectionResult

BAR_DECADES = (-9.0, 0.0)
"""The range of the bar of a distance, in powers of ten; the bar has :data:`BAR_WIDTH` characters."""
BAR_WIDTH = 27
SHOWN_OPERATORS = 8


def _bar(value: float | None) -> str:
    """Draw a distance as a bar on a logarithmic scale; None, such as for infinity, is drawn as a full bar."""
    low, high = BAR_DECADES
    power = high if value is None else math.log10(max(value, 10**low))
    return "█" * round(BAR_WIDTH * (min(power, high) - low) / (high - low))


def selftested(document: Document) -> None:
    """Draw the result of each fault that was injected."""
    wrapped(*document["artifacts"])
    by_fault: dict[str, list[Document]] = {}
    for row in document["faults"]:
        by_fault.setdefault(row["fault"], []).append(row)
    rows = []
    for fault, tried in by_fault.items():
        caught = sum(row["caught"] and row["class"] == row["expected"] for row in tried)
        named = ", ".join(dict.fromkeys(row["class"] or "-" for row in tried))
        rows.append([fault, named, f"{caught} of {len(tried)}"])
    show(table(["fault", "class"], ["caught in"], rows))
    for row in document["faults"]:
        if not row["caught"] or row["class"] != row["expected"]:
            named = f"named {row['class'] or 'nothing'}, not {row['expected']}"
            what = named if row["caught"] else "NOT CAUGHT" if row["changed"] else "it changed nothing"
            marked("failed", f"{row['artifact']}: {row['fault']}: {what}")
    for alarm in document["alarms"]:
        found = ", ".join((*alarm["failed_checks"], *alarm["failed_variants"])) or alarm["status"]
        marked("failed", f"false alarm: {alarm['artifact']}, clean run {alarm['run'] + 1}: {found}")
    left_out: dict[str, list[str]] = {}
    for row in document["lacking"]:
        left_out.setdefault(f"{row['fault']} ({row['reason']})", []).append(row["artifact"])
    for what, names in left_out.items():
        wrapped(f"not made: {what}: {', '.join(names)}")
    clean = f"clean runs: {document['clean_runs']}, false alarms: {document['false_alarms']}"
    show(clean if document["clean_runs"] else "no clean run was made: false alarms were not looked for")
    show(coloured(document["status"]))


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def _ran_by(document: BisectionResult) -> str:
    simulated = ", simulated" * (document.simulated or simulates(document.engine))
    return f"{document.engine} on {document.device}{simulated}"


def bisected(document: BisectionResult) -> None:
    """Draw where a variant departs: error against depth, and the operators of the worst stage."""
    show(
        pairs(
            [
                ("artifact", document.artifact),
                ("weights", weights_named(document.weights, document.synthetic)),
                ("variant", f"{document.variant}, {_ran_by(document)}"),
                ("reference", f"{document.reference.name}, fp32 on cpu"),
            ]
        )
    )
    wrapped(*(f"note: {note}" for note in document.notes))
    stages: list[list[Cell]] = [
        [
            row.stage + " *" * (row.stage == document.worst_stage),
            _figure(row.own),
            _figure(row.total),
            FoldedText(_bar(row.total), whole=True),
        ]
        for row in document.stages
    ]
    show(table(["stage (* worst)"], ["stage alone", "accumulated", "<accumulated, from 1e-9 to 1"], stages))
    departing = [row for row in document.operators if not row.agrees]
    operators: list[list[Cell]] = [
        [
            FoldedText(row.operator, whole=True),
            row.node,
            row.counterpart or "nothing",
            _figure(row.error),
        ]
        for row in departing[:SHOWN_OPERATORS]
    ]
    if operators:
        show("", f"operators of {document.worst_stage} that depart, in order:")
        show(table(["operator", "node", "nearest in the reference"], ["error"], operators))
        if len(departing) > SHOWN_OPERATORS:
            show(f"and {len(departing) - SHOWN_OPERATORS} more, in the report")
    wrapped(document.sentence, f"picture: {document.picture}")
    show(coloured(document.status))
