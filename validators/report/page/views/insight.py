"""Where errors come from: against depth, patch by patch, and by cause."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import numpy as np

from vconv.types import Array
from vconv.validators.report import sentences
from vconv.validators.report.page import charts, figures
from vconv.validators.report.page.charts import Dots, Frame, Series
from vconv.validators.report.page.gallery import Gallery, key
from vconv.validators.report.page.views.base import Chart, Column, Document, Table, chart, numbers

_METRIC = "relative_error"
"""Of a prediction: what published reports on NPUs give."""
_RAMP = np.array([(9, 20, 48), (24, 64, 110), (96, 110, 120), (170, 150, 90), (253, 231, 100)], np.float64)
"""Dark blue to yellow, of rising brightness: differences from none to the greatest shade."""
_JPEG_QUALITY = 85


def depth(report: Document) -> dict[str, Any]:
    """Lay out the error after each block."""
    rows = [(place, row) for place, row in enumerate(report["variants"]) if row.get("depth")]
    without = [
        (sentences.short_name(row), row.get("depth_reason") or "not looked at")
        for row in report["variants"]
        if not row.get("depth")
    ]
    return {"chart": _depth(rows) if rows else None, "without": _by_reason(without)}


def _by_reason(without: list[tuple[str, str]]) -> list[str]:
    """Say a reason once, of all variants that have it."""
    by: dict[str, list[str]] = {}
    for name, reason in without:
        by.setdefault(reason, []).append(name)
    return [f"{', '.join(names)}: {reason}" for reason, names in by.items()]


def _depth(rows: list[tuple[int, Document]]) -> Chart:
    stages = [one["stage"] for one in rows[0][1]["depth"]]
    series = [
        Series(sentences.short_name(row), tuple(one["error"] for one in row["depth"]), place)
        for place, row in rows
    ]
    ends = sorted((figures.badness(one.values[-2]), one.name) for one in series)
    (least, calmest), (most, worst) = ends[0], ends[-1]
    finding = f"After the last block the error is {_spoken(most)} ({worst})"
    finding += "." if len(ends) == 1 else f" at most and {_spoken(least)} ({calmest}) at least."
    limits = {
        output["limit"]: f"limit on outputs {figures.bound(output['limit'])}"
        for _, row in rows
        for output in row["outputs"].values()
        if output.get("limit")
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


def maps(report: Document, gallery: Gallery) -> dict[str, Any]:
    """Lay out each image beside the reference's map of it and every variant's."""
    shown = [row for row in report["variants"] if row.get("patch_maps") and key(row) in gallery.maps]
    without = [
        (sentences.short_name(row), row.get("patch_maps_reason") or "not looked at")
        for row in report["variants"]
        if row not in shown
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
                "variants": [_mapped(row, gallery, place, grid) for row in shown],
            }
        )
    largest = max(
        ((one["largest"], sentences.short_name(row)) for row in shown for one in row["patch_maps"]),
        default=None,
    )
    return {
        "images": images,
        "grid": grid,
        "largest": f"{figures.error(largest[0])} ({largest[1]})" if largest else "",
        "without": _by_reason(without),
        "ramp": _png(_shaded(np.arange(256, dtype=np.uint8)[None, :])),
    }


def _mapped(row: Document, gallery: Gallery, place: int, grid: str) -> dict[str, str]:
    name, told = sentences.short_name(row), row["patch_maps"][place]
    drawn = gallery.maps[key(row)][place]
    largest = figures.error(told["largest"])
    image = told["image"]
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


def prediction(report: Document) -> dict[str, Any] | None:
    """Lay out what a simulated device predicts, by cause; None where none was simulated."""
    rows = [row for row in report["variants"] if row["prediction"]]
    if not rows:
        return None
    causes = list(rows[0]["prediction"]["arithmetic"])
    names = ["predicted, all causes", *(f"{cause} alone" for cause in causes), "the rest"]
    laid = [
        (row, output, _errors(row, output, causes)) for row in rows for output in row["prediction"]["outputs"]
    ]
    worst = [_worst(row, causes) for row in rows]
    name, _, (error, *_) = max(worst, key=lambda one: figures.badness(one[2][0]))
    most = "no number" if error is None else figures.percent(error)
    finding = f"Predicted, not measured: {most} at most, of {name}."

    def draw(frame: Frame) -> str:
        dots = [Dots(f"{name}, {output}", values) for name, output, values in worst]
        return charts.dots(frame, names, dots, "relative error, predicted (simulated)")

    table = Table(
        "Relative error mean|a - e| / mean|e|, simulated",
        (Column("variant (simulated)"), Column("output"), *numbers(*names)),
        tuple((row["variant"], output, *map(figures.percent, values)) for row, output, values in laid),
    )
    device = report["devices"].get(rows[0]["device"], rows[0]["device"])
    return {
        "device": device,
        "chart": chart("prediction", f"Error by cause on a {device} (simulated)", finding, draw, table),
        "changed": [_changed(row) for row in rows],
    }


def _errors(row: Document, output: str, causes: list[str]) -> tuple[float | None, ...]:
    found = row["prediction"]
    alone = [
        found["causes"][cause]["outputs"][output][_METRIC] if found["changed"][cause] else None
        for cause in causes
    ]
    return found["outputs"][output][_METRIC], *alone, found["rest"][output][_METRIC]


def _worst(row: Document, causes: list[str]) -> tuple[str, str, tuple[float | None, ...]]:
    outputs = row["prediction"]["outputs"]
    output = max(outputs, key=lambda name: figures.badness(outputs[name][_METRIC]))
    return sentences.short_name(row), output, _errors(row, output, causes)


def _changed(row: Document) -> str:
    found = row["prediction"]
    changed = ", ".join(f"{count} {cause}" for cause, count in found["changed"].items())
    return (
        f"{sentences.short_name(row)}: of {found['executed']} {sentences.executed(row)}, changed: {changed}"
    )
