"""The origin of errors: by depth, by patch, and by cause."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import numpy as np

from vconv.types import Array
from vconv.validators.outcome import NOT_LOOKED_AT
from vconv.validators.report import sentences
from vconv.validators.report.document import Report
from vconv.validators.report.page import charts, figures
from vconv.validators.report.page.charts import Dots, Frame, Series
from vconv.validators.report.page.gallery import Gallery, key
from vconv.validators.report.page.views.base import Chart, Column, Table, chart, numbers
from vconv.validators.report.rows import DepthRow, PatchMapRow, PredictedErrors, PredictionRow, VariantRow

_RAMP = np.array([(9, 20, 48), (24, 64, 110), (96, 110, 120), (170, 150, 90), (253, 231, 100)], np.float64)
"""Colours of differences, from the least to the greatest shade: dark blue to yellow, ever brighter."""
_JPEG_QUALITY = 85


def depth(report: Report) -> dict[str, Any]:
    """Lay out the error after each stage."""
    rows = [(place, row, row.depth) for place, row in enumerate(report.variants) if row.depth]
    without = [
        (sentences.short_name(row), row.depth_reason or NOT_LOOKED_AT)
        for row in report.variants
        if not row.depth
    ]
    return {"chart": _depth(rows) if rows else None, "without": _by_reason(without)}


def _by_reason(without: list[tuple[str, str]]) -> list[str]:
    """Return one line per reason, with all variants that have this reason."""
    by: dict[str, list[str]] = {}
    for name, reason in without:
        by.setdefault(reason, []).append(name)
    return [f"{', '.join(names)}: {reason}" for reason, names in by.items()]


def _depth(rows: list[tuple[int, VariantRow, tuple[DepthRow, ...]]]) -> Chart:
    stages = [one.stage for one in rows[0][2]]
    series = [
        Series(sentences.short_name(row), tuple(one.error for one in depth), place)
        for place, row, depth in rows
    ]
    ends = sorted((figures.badness(one.values[-2]), one.name) for one in series)
    (least, calmest), (most, worst) = ends[0], ends[-1]
    finding = f"After the last block the error is {_spoken(most)} ({worst})"
    finding += "." if len(ends) == 1 else f" at most and {_spoken(least)} ({calmest}) at least."
    limits = {
        output.limit: f"limit on outputs {figures.bound(output.limit)}"
        for _, row, _ in rows
        for output in row.outputs.values()
        if output.limit
    }
    places = [stage.removeprefix("block ").replace("embeddings", "emb.") for stage in stages]
    axes = ("after embeddings, each block, and the head", "vector relative error")

    def draw(frame: Frame) -> str:
        return charts.lines(frame, places, series, axes=axes, bounds=list(limits.items()))

    table = Table(
        "Vector relative error after each stage, on the first image",
        (Column("stage"), *numbers(*(one.name for one in series))),
        tuple(
            (stage, *(figures.error(one.values[place]) for one in series))
            for place, stage in enumerate(stages)
        ),
    )
    return chart("depth", "Error against depth", finding, draw, table)


def _spoken(error: float) -> str:
    return figures.error(error) if math.isfinite(error) else "no number"


def maps(report: Report, gallery: Gallery) -> dict[str, Any]:
    """Lay out each image with the map of the reference and the maps of the variants."""
    shown = [(row, row.patch_maps) for row in report.variants if row.patch_maps and key(row) in gallery.maps]
    drawn = [row for row, _ in shown]
    without = [
        (sentences.short_name(row), row.patch_maps_reason or NOT_LOOKED_AT)
        for row in report.variants
        if row not in drawn
    ]
    height, width = gallery.grid
    grid = f"{width} by {height} patches"
    images = []
    for place, (name, own) in enumerate(zip(gallery.names, gallery.reference(), strict=True)):
        images.append(
            {
                "name": name,
                "photograph": _jpeg(gallery.photographs[place]),
                "photograph_told": f"{name}, as the network saw it",
                "reference": _png(own),
                "reference_told": f"Map of {grid} of {name} by the reference, its components as colours",
                "variants": [_mapped(row, found[place], gallery, place, grid) for row, found in shown],
            }
        )
    largest = max(
        ((one.largest, sentences.short_name(row)) for row, found in shown for one in found),
        key=lambda one: figures.badness(one[0]),
        default=None,
    )
    return {
        "images": images,
        "grid": grid,
        "largest": f"{figures.error(largest[0])} ({largest[1]})" if largest else "",
        "without": _by_reason(without),
        "ramp": _png(_shaded(np.arange(256, dtype=np.uint8)[None, :])),
    }


def _mapped(row: VariantRow, told: PatchMapRow, gallery: Gallery, place: int, grid: str) -> dict[str, str]:
    name = sentences.short_name(row)
    drawn = gallery.maps[key(row)][place]
    largest = figures.error(told.largest)
    image = told.image
    return {
        "name": name,
        "map": _png(drawn.colours),
        "map_told": f"Map of {grid} of {image} by {name}, in the reference's colours",
        "difference": _png(_shaded(drawn.differences)),
        "difference_told": f"Difference of {name} from the reference by patch, at most {largest}",
        "largest": largest,
    }


def _shaded(shades: Array) -> Array:
    at = np.linspace(0, 255, len(_RAMP))
    return np.stack([np.interp(shades, at, _RAMP[:, channel]) for channel in range(3)], -1).astype(np.uint8)


def _png(pixels: Array) -> str:
    return _uri(pixels, "png", optimize=True)


def _jpeg(pixels: Array) -> str:
    return _uri(pixels, "jpeg", quality=_JPEG_QUALITY)


def _uri(pixels: Array, kind: str, **options: Any) -> str:
    from PIL import Image

    target = io.BytesIO()
    Image.fromarray(pixels).save(target, format=kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(target.getvalue()).decode()}"


def prediction(report: Report) -> dict[str, Any] | None:
    """Lay out the predictions of a simulated device, by cause; None if there are no predictions."""
    rows = [(row, row.prediction) for row in report.variants if row.prediction]
    if not rows:
        return None
    causes = list(rows[0][1].arithmetic)
    names = ["predicted, all causes", *(f"{cause} alone" for cause in causes), "the rest"]
    laid = [(row, output, _errors(found, output, causes)) for row, found in rows for output in found.outputs]
    worst = [_worst(row, found, causes) for row, found in rows]
    name, _, (error, *_) = max(worst, key=lambda one: figures.badness(one[2][0]))
    most = "no number" if error is None else figures.percent(error)
    finding = f"Predicted, not measured: {most} at most, of {name}."

    def draw(frame: Frame) -> str:
        dots = [Dots(f"{name}, {output}", values) for name, output, values in worst]
        return charts.dots(frame, names, dots, "relative error, predicted (simulated)")

    table = Table(
        "Relative error mean|a - e| / mean|e|, simulated",
        (Column("variant (simulated)"), Column("output"), *numbers(*names)),
        tuple((row.variant, output, *map(figures.percent, values)) for row, output, values in laid),
    )
    device = report.devices.get(rows[0][0].device, rows[0][0].device)
    return {
        "device": device,
        "chart": chart("prediction", f"Error by cause on a {device} (simulated)", finding, draw, table),
        "changed": [_changed(row, found) for row, found in rows],
    }


def _errors(found: PredictionRow, output: str, causes: list[str]) -> tuple[float | None, ...]:
    """Return the predicted errors of an output: with all causes, with each alone, and without any."""
    alone = [
        _error(found.causes[cause].outputs[output]) if found.changed[cause] else None for cause in causes
    ]
    return _error(found.outputs[output]), *alone, _error(found.rest[output])


def _error(errors: PredictedErrors) -> float | None:
    """Return the metric that published reports on NPUs give."""
    return errors.relative_error


def _worst(
    row: VariantRow, found: PredictionRow, causes: list[str]
) -> tuple[str, str, tuple[float | None, ...]]:
    output = max(found.outputs, key=lambda name: figures.badness(_error(found.outputs[name])))
    return sentences.short_name(row), output, _errors(found, output, causes)


def _changed(row: VariantRow, found: PredictionRow) -> str:
    changed = ", ".join(f"{count} {cause}" for cause, count in found.changed.items())
    return f"{sentences.short_name(row)}: of {found.executed} {sentences.executed(row)}, changed: {changed}"
