"""Draws the comparison over a folder of images for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from vconv.cli.render.base import Cell, coloured, marked, show, table, wrapped
from vconv.types import weights_named
from vconv.validators.report import sentences
from vconv.validators.report.dataset_document import DatasetOutput, DatasetReport
from vconv.validators.report.document import Report

_SKIPPED = 5
"""The number of skipped images that are named; the log names more."""
_SHORT = {"last_hidden_state": "last_hidden"}
"""Short forms of output names that are too long for this table."""


def dataset(document: Report) -> None:
    """Draw the results of the variants on a folder of images; nothing if no folder was given."""
    found = document.dataset
    if not found:
        return
    weights = weights_named(document.weights, document.synthetic)
    show("")
    wrapped(f"data set {found.folder}: {sentences.images(found)}; weights {weights}")
    classified = any(row.top1_agreement is not None for row in found.variants)
    figures = ("<output", "p50", "worst", "beyond", "same kNN", *["top-1"] * classified, "<status")
    show(table(["variant"], figures, _variants(found, classified)))
    chance = found.agreement_by_chance
    if chance is not None:
        wrapped(
            f"neighbours: share of each image's {found.k} nearest by {found.neighbours_of} that are "
            f"the reference's; by chance it would be {chance:.3f}"
        )
    show("the worst images, by the share of their limit:" if found.worst else "no image was judged")
    show(table(["image", "variant"], ("<output", "error", "cosine", "of limit"), _worst(found)))
    for row in found.skipped[:_SKIPPED]:
        marked("skipped", f"{row.image}: {row.reason}")
    if found.skipped_count > _SKIPPED:
        first = len(found.skipped)
        named = (
            "which the log names" if first == found.skipped_count else f"the log names the first {first:,}"
        )
        show(f"and {found.skipped_count - _SKIPPED:,} more, {named}")


def _variants(found: DatasetReport, classified: bool) -> Iterator[list[Cell]]:
    """Lay out each variant with the figures of its worst output."""
    for row in found.variants:
        name, output = max(row.outputs.items(), key=lambda item: _badness(item[1]))
        errors, status = output.vector_relative_error, sentences.word(row.status, row.reason, measured=True)
        cells = [sentences.short_name(row), _SHORT.get(name, name)]
        cells += [_number(errors[key], ".1e") for key in ("p50", "p100")]
        cells += ["-" if output.beyond is None else str(output.beyond)]
        cells += [_number(row.neighbours.agreement, ".4f")]
        yield [*cells, *[_number(row.top1_agreement, ".4f")] * classified, coloured(status)]


def _badness(output: DatasetOutput) -> tuple[int, float]:
    """Return an output's sort key: its images beyond the limit, then its greatest error; None is infinite."""
    worst = output.vector_relative_error["p100"]
    return output.beyond or 0, float("inf") if worst is None else worst


def _worst(found: DatasetReport) -> Iterator[list[Cell]]:
    for row in found.worst:
        name, output = sentences.short_name(row), _SHORT.get(row.output, row.output)
        figures = [_number(row.vector_relative_error, ".1e"), _number(row.cosine, ".6f")]
        yield [row.image, name, output, *figures, _number(row.share_of_limit, ".2g")]


def _number(value: float | None, style: str) -> str:
    return "-" if value is None else format(value, style)
