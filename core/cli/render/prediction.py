"""Draws the predictions of a simulated NPU for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from vconv.cli.render.base import show, table, wrapped
from vconv.validators.report import sentences
from vconv.validators.report.document import Report
from vconv.validators.report.rows import PredictedErrors, PredictionRow


def predictions(document: Report) -> None:
    """Draw the predicted error of each variant and output, and the contribution of each cause alone."""
    predicted = [(row, row.prediction) for row in document.variants if row.prediction]
    if not predicted:
        return
    causes = list(predicted[0][1].arithmetic)
    device = document.devices[predicted[0][0].device]
    show("")
    wrapped(f"predicted, not measured: relative error on a {device}")
    figures = ("predicted", *(f"{cause}\nalone" for cause in causes), "the rest")
    rows = (line for row, found in predicted for line in _rows(row.variant, found, causes))
    show(table(["variant (simulated)"], figures, rows))
    for row, found in predicted:
        changed = ", ".join(f"{count} {cause}" for cause, count in found.changed.items())
        of = f"{found.executed} {sentences.executed(row)}"
        wrapped(f"  {row.variant} (simulated): of {of}, changed: {changed}")


def _rows(variant: str, found: PredictionRow, causes: list[str]) -> Iterator[list[str]]:
    """Lay out a variant: one row with only its name, and one row for each of its outputs."""
    yield [variant]
    for output, errors in found.outputs.items():
        alone = [found.causes[cause].outputs[output] if found.changed[cause] else None for cause in causes]
        yield [f"  {output}", *(_percent(one) for one in (errors, *alone, found.rest[output]))]


def _percent(errors: PredictedErrors | None) -> str:
    """Format an error in percent; it is the same metric as in published reports on NPUs.

    A dash means that a cause changed nothing, or that the error is not a number.
    """
    if errors is None or errors.relative_error is None:
        return "-"
    return f"{100 * errors.relative_error:.4f} %"
