"""What was found on a folder of images, drawn for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from vconv.display.base import Document, coloured, show, wrapped
from vconv.types import weights_named
from vconv.validators import sentences

_SKIPPED = 5
"""Images that are named of those that could not be read; the log has all of them."""


def dataset(document: Document) -> None:
    """Draw how the variants did on a folder of images; nothing where there was none."""
    found = document["dataset"]
    if not found:
        return
    weights = weights_named(document["weights"], document["synthetic"])
    wrapped(f"data set {found['folder']}: {sentences.images(found)}; weights {weights}")
    show(_variants(found))
    chance = found["agreement_by_chance"]
    if chance is not None:
        wrapped(
            f"neighbours: share of each image's {found['k']} nearest by {found['neighbours_of']} that are "
            f"the reference's; by chance it would be {chance:.3f}"
        )
    show("the worst images, by the share of their limit:" if found["worst"] else "no image was judged")
    show(_worst(found))
    for row in found["skipped"][:_SKIPPED]:
        wrapped(f"skipped: {row['image']}: {row['reason']}")
    if len(found["skipped"]) > _SKIPPED:
        show(f"and {len(found['skipped']) - _SKIPPED:,} more, which the log names", markup=False)


def _drawn(texts: Mapping[str, int], figures: Sequence[str]) -> Table:
    """Begin a table of at most 80 characters: columns of text, by their greatest width, and of figures."""
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, show_edge=False)
    for column, width in texts.items():
        drawn.add_column(column, overflow="fold", max_width=width)
    for column in figures:
        drawn.add_column(column, justify="right", no_wrap=True)
    return drawn


def _variants(found: Document) -> Table:
    """Lay out each variant at the output with the greatest error."""
    classified = any(row["top1_agreement"] is not None for row in found["variants"])
    figures = ["p50", "worst", "beyond", "same kNN", *["top-1"] * classified, "status"]
    drawn = _drawn({"variant": 20, "output": 10}, figures)
    for row in found["variants"]:
        name, output = max(row["outputs"].items(), key=lambda item: _badness(item[1]))
        errors = output["vector_relative_error"]
        cells = [_name(row), name, *(_number(errors[key], ".1e") for key in ("p50", "p100"))]
        cells += ["-" if output["beyond"] is None else str(output["beyond"])]
        cells += [_number(row["neighbours"]["agreement"], ".4f")]
        cells += [_number(row["top1_agreement"], ".4f")] * classified
        drawn.add_row(*map(escape, cells), coloured(row["status"]))
    return drawn


def _badness(output: Document) -> tuple[int, float]:
    """Order outputs by their images beyond the limit, and then by their greatest error; None is infinite."""
    worst = output["vector_relative_error"]["p100"]
    return output["beyond"] or 0, float("inf") if worst is None else worst


def _worst(found: Document) -> Table:
    drawn = _drawn({"image": 21, "variant": 20, "output": 10}, ("error", "cosine", "of limit"))
    for row in found["worst"]:
        cells = [row["image"], _name(row), row["output"], _number(row["vector_relative_error"], ".1e")]
        cells += [_number(row["cosine"], ".6f"), _number(row["share_of_limit"], ".2g")]
        drawn.add_row(*map(escape, cells))
    return drawn


def _name(row: Document) -> str:
    engine: str = "" if row["engine"] in ("torch", "onnxruntime") else f" {row['engine']}"
    device: str = "" if row["device"] == "cpu" else f" {row['device']}"
    return f"{row['variant']}{engine}{device}{' (simulated)' if row['simulated'] else ''}"


def _number(value: float | None, style: str) -> str:
    return "-" if value is None else format(value, style)
