"""The error of every variant and output with its limit, and the agreement over a folder of images."""

from __future__ import annotations

import math
from typing import Any

from vconv.validators.accuracy.metrics import METRICS
from vconv.validators.report import sentences
from vconv.validators.report.dataset_document import DatasetOutput, DatasetRow
from vconv.validators.report.document import Report
from vconv.validators.report.page import figures
from vconv.validators.report.page.views.base import (
    CODE,
    NUMBER,
    STATUS,
    TEXT,
    Column,
    Table,
    numbers,
)
from vconv.validators.report.page.views.verdict import reasons
from vconv.validators.report.rows import OutputRow

_FLOOR_AT, _LIMIT_AT = 15.0, 85.0
"""Positions of the floor and of the limit on a cell's scale, in percent: there is room beyond the limit."""


def matrix(report: Report) -> dict[str, Any]:
    """Lay out the matrix of results, with one row per variant and one column per output."""
    rows = report.variants
    names = list(dict.fromkeys(name for row in rows for name in row.outputs))
    laid = [
        {
            "name": sentences.short_name(row),
            "status": row.status,
            "word": sentences.standing(row),
            "judged": sentences.computed(row.precision, row.arithmetic),
            "reasons": reasons(row),
            "cells": [_cell(row.outputs.get(name)) for name in names],
        }
        for row in rows
    ]
    return {"outputs": names, "rows": laid, "table": _metrics(report)}


def _cell(output: OutputRow | None) -> dict[str, Any]:
    if output is None:
        return {"status": "skipped", "error": figures.DASH, "at": None, "told": "not there"}
    error, limit = output.vector_relative_error, output.limit
    told = f"{figures.error(error)}, {output.status}"
    told += f", limit {figures.bound(limit)}" if limit else ", no limit"
    told += f", floor {figures.error(output.floor)}" if output.floor else ""
    return {
        "status": output.status,
        "error": figures.error(error),
        "limit": figures.bound(limit) if limit else "",
        "at": position(error, output.floor, limit),
        "told": told,
    }


def position(error: float | None, floor: float | None, limit: float | None) -> float | None:
    """Return the logarithmic position of an error between floor and limit, in percent of a cell's width.

    Args:
        error: the vector relative error.
        floor: the vector relative error of the reference in fp32 against float64.
        limit: the greatest allowed error.

    Returns:
        From the floor's position, also for an error below it, to 98; None if a value is missing, or the limit
        is not above the floor.
    """
    if error is None or not floor or not limit or limit <= floor:
        return None
    if error <= floor:
        return _FLOOR_AT
    share = math.log(error / floor) / math.log(limit / floor)
    return round(min(98.0, _FLOOR_AT + share * (_LIMIT_AT - _FLOOR_AT)), 1)


_SHOWN = {
    "floor": figures.error,
    "limit": figures.bound,
    **{
        name: figures.cosine if metric.better == "high" else figures.error for name, metric in METRICS.items()
    },
    "to_stock_original": figures.error,
}
"""By figure of an output: the function that formats it."""


def _metrics(report: Report) -> Table:
    found = [(row, name, output) for row in report.variants for name, output in row.outputs.items()]
    shown = [key for key in _SHOWN if any(_value(output, key) is not None for _, _, output in found)]
    first = (Column("variant"), Column("output"), Column("status", STATUS), Column("shape", CODE))
    rows = tuple(
        (
            sentences.short_name(row),
            name,
            output.status.value,
            " \N{MULTIPLICATION SIGN} ".join(map(str, output.shape)),
            *(_SHOWN[key](_value(output, key)) for key in shown),
        )
        for row, name, output in found
    )
    named = tuple(Column(key.replace("_", " "), NUMBER) for key in shown)
    return Table("Every metric of every output, the worst image of each", first + named, rows)


def _value(output: OutputRow, key: str) -> float | None:
    """Return a figure of an output: a metric, or another field."""
    found: float | None = output.metrics.get(key) if key in METRICS else getattr(output, key)
    return found


def folder(report: Report) -> dict[str, Any] | None:
    """Lay out how variants agree over a folder of images; None if no folder was given."""
    found = report.dataset
    if not found:
        return None
    rows = tuple(
        _over_folder(row, name, output, place == 0)
        for row in found.variants
        for place, (name, output) in enumerate(row.outputs.items())
    )
    named = (
        Column("variant"),
        Column("output"),
        *numbers("cosine, least", "cosine, 1st percentile", "cosine, median"),
        *numbers("relative error, median", "90th", "99th", "largest", "same neighbours", "same top 1"),
    )
    worst = [
        {
            "image": row.image,
            "variant": sentences.short_name(row),
            "output": row.output,
            "cosine": figures.cosine(row.cosine),
            "error": figures.error(row.vector_relative_error),
            # Only an embedded picture is shown, so that the page loads nothing.
            "thumbnail": row.thumbnail if (row.thumbnail or "").startswith("data:image/") else "",
        }
        for row in found.worst
    ]
    return {
        "folder": found.folder,
        "images": found.images,
        "table": Table(f"Agreement over {found.images} images", named, rows),
        "worst": worst,
        "skipped": [(row.image, row.reason) for row in found.skipped],
        "unlisted": found.skipped_count - len(found.skipped),
    }


def _over_folder(row: DatasetRow, name: str, output: DatasetOutput, first: bool) -> tuple[str, ...]:
    near, top = row.neighbours, row.top1_agreement
    shared = near.agreement  # None if there are too few images to compare neighbours
    shares = [figures.DASH if shared is None else f"{100 * shared:.2f} % of {near.k}"]
    shares += [figures.DASH if top is None else f"{100 * top:.2f} %"]
    return (
        sentences.short_name(row),
        name,
        *(figures.cosine(output.cosine.get(key)) for key in ("p0", "p1", "p50")),
        *(figures.error(output.relative_error.get(key)) for key in ("p50", "p90", "p99", "p100")),
        *(shares if first else ["", ""]),
    )


def limits(report: Report) -> Table:
    """Lay out the limits that were used, and the measurements behind them."""
    rows = tuple(
        (
            sentences.computed(row.precision, row.arithmetic),
            ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in row.bounds.items()),
            row.source,
        )
        for row in report.limits.rows
    )
    named = (Column("precision on arithmetic"), Column("bounds", TEXT), Column("measured by"))
    return Table(f"Limits used: {report.limits.within}", named, rows)
