"""A validation and a comparison, drawn for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from vconv.display.base import COLOURS, Document, coloured, show, wrapped
from vconv.display.dataset import dataset
from vconv.display.predicted import predictions
from vconv.types import weights_named
from vconv.validators import sentences


def _worst_output(outputs: Mapping[str, Document]) -> tuple[str, Document]:
    if not outputs:
        return "-", {}
    return max(
        outputs.items(),
        key=lambda item: (item[1]["status"] == "failed", item[1].get("vector_relative_error") or 0),
    )


def variants(document: Document) -> Table:
    """Lay variants out as a table: one row a variant and batch, the worst output of each."""
    timed = any(variant["latency"] for variant in document["variants"])
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, show_edge=False)
    drawn.add_column("variant", overflow="fold")
    drawn.add_column("worst output", no_wrap=True)
    for column in ("floor", "error", "limit", *(("batch", "p50 ms", "img/s") if timed else ())):
        drawn.add_column(column, justify="right", no_wrap=True)
    drawn.add_column("status", no_wrap=True)
    for variant in document["variants"]:
        output, row = _worst_output(variant["outputs"])
        figures = (("floor", ".0e"), ("vector_relative_error", ".1e"), ("limit", ".2g"))
        first = [_name(variant), output]
        first += ["-" if row.get(key) is None else format(row[key], style) for key, style in figures]
        for place, timing in enumerate(variant["latency"] or [None]):
            numbers = ["-"] * 3 if timed else []
            if timing:
                rate = f"{timing['images_per_second']:.1f}"
                numbers = [str(timing["batch"]), f"{timing['p50_ms']:.1f}", rate]
            left, status = (first, coloured(variant["status"])) if place == 0 else ([""] * len(first), "")
            drawn.add_row(*left, *numbers, status)
    return drawn


def _name(variant: Document) -> str:
    """Name a variant, with its engine and device where they are not the usual ones, and *simulated*."""
    engine: str = "" if variant["engine"] in ("torch", "onnxruntime") else f" {variant['engine']}"
    device: str = "" if variant["device"] == "cpu" else f" {variant['device']}"
    return f"{variant['variant']}{engine}{device}{' (simulated)' if variant['simulated'] else ''}"


def _speed_ups(document: Document) -> str:
    """Say how much faster than the baseline each variant is, at its first batch that can be compared."""
    found = [
        f"{_name(variant)} {timing['speed_up_over_cpu']:.2f}"
        for variant in document["variants"]
        for timing in variant["latency"][:1]
        if timing["speed_up_over_cpu"] and f"{variant['variant']} on cpu" != document["speed_up_baseline"]
    ]
    return f"times as fast as {document['speed_up_baseline']}: {', '.join(found)}" if found else ""


def _launches(document: Document) -> str:
    """Say how many kernels or operators each variant launches for one image, where that can be seen."""
    by_how: dict[str, list[str]] = {}
    for variant in document["variants"]:
        if variant["launches"]:
            found = variant["launches"]
            by_how.setdefault(found["how"], []).append(f"{_name(variant)} {found['total']}")
    told = "; ".join(f"{', '.join(found)} ({how})" for how, found in by_how.items())
    return f"launched for one image: {told}" if told else ""


_SOURCES = {
    "live": "run here on the original's weights",
    "golden": "recorded at export; the original's weights are not here",
    "file": "recorded on another machine",
    "none": "none: nothing was compared",
}


def _published(rows: Sequence[Document]) -> Table:
    """Lay out what others have published: never in one table with one's own figures."""
    drawn = Table(
        title="published by others, not measured here", title_justify="left", box=None, pad_edge=False
    )
    for column in ("device", "variant", "what", "figures", "source"):
        drawn.add_column(column, overflow="fold")
    for row in rows:
        what = row["output"] or f"batch {row['batch']}"
        figures = ", ".join(f"{name} {value:g}" for name, value in row["figures"].items())
        drawn.add_row(*map(escape, (row["device"], row["variant"], what, figures, row["source"])))
    return drawn


def validated(document: Document) -> None:
    """Draw the report of a validation."""
    reference = document["reference"]
    name = f"{reference['name']}, " if reference["name"] else ""
    weights = weights_named(document["weights"], document["synthetic"])
    show(f"{document['artifact']}: weights {weights}", markup=False)
    show(f"reference: {name}{_SOURCES[reference['source']]}", markup=False)
    for check in document["checks"]:
        if check["status"] == "failed":
            show(f"failed: {check['name']}: {check['detail']}", markup=False)
    show(f"limits: {document['limits']['within']}", markup=False)
    if document["variants"]:
        show(variants(document))
    else:
        show("nothing was recorded, and the original is not here: give --weights WHERE")
    for variant in document["variants"]:
        for skipped in variant["skipped_batches"]:
            show(
                f"  {_name(variant)}: batch {skipped['batch']} not timed: {skipped['reason']}",
                markup=False,
            )
        if variant["timing_refused"]:
            show(f"  {_name(variant)}: not timed: {variant['timing_refused']}", markup=False)
        if warning := sentences.fallbacks(variant):
            show(f"  warning: {warning}", markup=False)
        found = [
            f"{key}: {reason}" for key, row in variant["outputs"].items() for reason in row.get("reasons", ())
        ]
        for line in found or [variant["reason"]] * bool(variant["reason"]):
            show(f"  {_name(variant)}: {line}", markup=False)
    predictions(document)
    dataset(document)
    wrapped(_launches(document), _speed_ups(document), *sentences.fastest(document["ranking"]))
    if document["published"]:
        show(_published(document["published"]))
    counts = {status: sum(check["status"] == status for check in document["checks"]) for status in COLOURS}
    show("checks: " + ", ".join(f"{number} {status}" for status, number in counts.items() if number))
    for check in document["checks"]:
        if check["status"] == "skipped":
            show(f"  {check['status']}: {check['name']}: {check['detail']}", markup=False)
    for row in document["diagnosis"]:
        wrapped(f"diagnosis: {row['class']}: {row['meaning']} ({row['where']}: {row['because']})")
    show(f"report: {document['report']}", markup=False)
    show(coloured(document["status"]))


def compared(document: Document) -> None:
    """Draw a comparison: one table over variants, engines, devices and artifacts."""
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for column in ("artifact", "variant", "engine", "device"):
        drawn.add_column(column, overflow="fold")
    for column in ("batch", "p50 ms", "img/s", "error", "cosine"):
        drawn.add_column(column, justify="right", no_wrap=True)
    drawn.add_column("status", no_wrap=True)
    for row in document["rows"]:
        simulated = " (simulated)" * row["simulated"]
        numbers = [
            "-" if row["batch"] is None else str(row["batch"]),
            *("-" if row[key] is None else f"{row[key]:.1f}" for key in ("p50_ms", "images_per_second")),
            "-" if row["vector_relative_error"] is None else f"{row['vector_relative_error']:.1e}",
            "-" if row["cosine"] is None else f"{row['cosine']:.6f}",
        ]
        names = [row["artifact"], row["variant"] + simulated, row["engine"], row["device"]]
        drawn.add_row(*map(escape, names), *numbers, coloured(row["status"]))
    show(drawn)
    for row in document["rows"]:
        if row["timing_refused"]:
            show(f"  {row['artifact']}: {_name(row)}: not timed: {row['timing_refused']}", markup=False)
    wrapped(sentences.winner(document))
    show(f"  limits: {document['limits']['within']}", markup=False)
    for path, label in document["weights"].items():
        reference = _SOURCES[document["references"][path]]
        show(f"  {path}: {document['statuses'][path]}; weights {label}", markup=False)
        show(f"    reference: {reference}", markup=False)
    for check in document["checks"]:
        show(f"  {check['status']}: {check['artifact']}: {check['name']}: {check['detail']}", markup=False)
    show(coloured(document["status"]))
