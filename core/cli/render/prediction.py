"""What a simulated NPU predicts, drawn for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from vconv.cli.render.base import Document, show, table, wrapped
from vconv.validators.report import sentences

_METRIC = "relative_error"
"""What published reports on NPUs give."""


def predictions(document: Document) -> None:
    """Draw the error that is predicted of each variant and output, and what each cause alone contributes."""
    predicted = [variant for variant in document["variants"] if variant["prediction"]]
    if not predicted:
        return
    causes = list(predicted[0]["prediction"]["arithmetic"])
    device = document["devices"][predicted[0]["device"]]
    show("")
    wrapped(f"predicted, not measured: relative error on a {device}")
    figures = ("predicted", *(f"{cause}\nalone" for cause in causes), "the rest")
    rows = (row for variant in predicted for row in _rows(variant, causes))
    show(table(["variant (simulated)"], figures, rows))
    for variant in predicted:
        changed = ", ".join(f"{count} {cause}" for cause, count in variant["prediction"]["changed"].items())
        of = f"{variant['prediction']['executed']} {sentences.executed(variant)}"
        wrapped(f"  {variant['variant']} (simulated): of {of}, changed: {changed}")


def _rows(variant: Document, causes: list[str]) -> Iterator[list[str]]:
    """Lay out a variant: a row with its name alone, and one for each of its outputs."""
    found = variant["prediction"]
    yield [variant["variant"]]
    for output, errors in found["outputs"].items():
        alone = [found["changed"][cause] and found["causes"][cause]["outputs"][output] for cause in causes]
        yield [f"  {output}", *(_percent(one) for one in (errors, *alone, found["rest"][output]))]


def _percent(errors: Document | int) -> str:
    """Give the error in percent; a dash for a cause that changed nothing, and for what is no number."""
    if isinstance(errors, int) or errors[_METRIC] is None:
        return "-"
    return f"{100 * errors[_METRIC]:.4f} %"
