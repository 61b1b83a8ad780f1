"""What a simulated NPU predicts, drawn for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.table import Table

from vconv.display.base import Document, show
from vconv.validators import sentences

_METRIC = "relative_error"
"""What published reports on NPUs give."""


def predictions(document: Document) -> None:
    """Draw the error that is predicted of each variant and output, and what each cause alone contributes."""
    predicted = [variant for variant in document["variants"] if variant["prediction"]]
    if not predicted:
        return
    causes = list(predicted[0]["prediction"]["arithmetic"])
    device = document["devices"][predicted[0]["device"]]
    show(f"predicted, not measured: relative error on a {device}", markup=False)
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for column in ("variant (simulated)", "output"):
        drawn.add_column(column, overflow="fold")
    for column in ("predicted", *(f"{cause} alone" for cause in causes), "the rest"):
        drawn.add_column(column, justify="right", no_wrap=True)
    for variant in predicted:
        for cells in _rows(variant, causes):
            drawn.add_row(*cells)
    show(drawn)
    for variant in predicted:
        changed = ", ".join(f"{count} {cause}" for cause, count in variant["prediction"]["changed"].items())
        of = f"{variant['prediction']['executed']} {sentences.executed(variant)}"
        show(f"  {variant['variant']} (simulated): of {of}, changed: {changed}", markup=False)


def _rows(variant: Document, causes: list[str]) -> Iterator[list[str]]:
    found = variant["prediction"]
    for place, (output, errors) in enumerate(found["outputs"].items()):
        alone = [found["changed"][cause] and found["causes"][cause]["outputs"][output] for cause in causes]
        cells = [_percent(one) for one in (errors, *alone, found["rest"][output])]
        yield [variant["variant"] if place == 0 else "", output, *cells]


def _percent(errors: Document | int) -> str:
    """Give the error in percent; a dash for a cause that changed nothing, and for what is no number."""
    if isinstance(errors, int) or errors[_METRIC] is None:
        return "-"
    return f"{100 * errors[_METRIC]:.4f} %"
