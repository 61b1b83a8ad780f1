"""What `vconv doctor` found, drawn for a terminal."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from vconv.display.base import Document, show

_COLOURS = {"ok": "green", "note": "yellow", "problem": "bold red"}


def diagnosed(document: Document) -> None:
    """Draw a diagnosis: a line for each finding, and below it how to mend it."""
    drawn = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(3):
        drawn.add_column(overflow="fold")
    for finding in document["findings"]:
        state = finding["state"]
        drawn.add_row(finding["name"], f"[{_COLOURS[state]}]{state}[/]", escape(finding["found"]))
        if finding["mend"]:
            drawn.add_row("", "", f"[bold]to mend it: {escape(finding['mend'])}[/]")
    problems = [finding["name"] for finding in document["findings"] if finding["state"] == "problem"]
    show(drawn, f"problems: {', '.join(problems)}" if problems else "everything that is installed works")
