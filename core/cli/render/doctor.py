"""Draws the findings of `vconv doctor` for a terminal."""

from __future__ import annotations

from rich.table import Table

from vconv.cli.render.base import GAP, Document, FoldedText, coloured, marked, show


def diagnosed(document: Document) -> None:
    """Draw a diagnosis: a line for each finding, and below it the fix."""
    drawn = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), show_header=False)
    for _ in range(3):
        drawn.add_column(overflow="fold")
    for finding in document["findings"]:
        drawn.add_row(FoldedText(finding["name"]), coloured(finding["state"]), FoldedText(finding["found"]))
        if finding["fix"]:
            drawn.add_row("", "", FoldedText(f"to fix it: {finding['fix']}"))
    show(drawn)
    problems = [finding["name"] for finding in document["findings"] if finding["state"] == "problem"]
    if problems:
        marked("problems", ", ".join(problems))
    else:
        show("everything that is installed works")
