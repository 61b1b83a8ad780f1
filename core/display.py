"""Results drawn for a terminal. Nothing is computed here."""

from __future__ import annotations

import math
import shlex
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vconv.types import WEIGHTS_FILE, weights_named
from vconv.validators import sentences

Document = Mapping[str, Any]
_COLOURS = {"passed": "green", "failed": "bold red", "skipped": "yellow", "incomplete": "yellow"}


PIPED_WIDTH = 200
"""Columns where standard output is no terminal: nothing is folded that a program may look for."""


def _print(*parts: Table | str, markup: bool = True) -> None:
    """Print to standard output, without the spaces that fill up lines."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
    with console.capture() as captured:
        for part in parts:
            console.print(part, markup=markup, soft_wrap=isinstance(part, str))
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def _wrapped(*texts: str) -> None:
    for text in texts:
        for line in textwrap.wrap(text, 80, break_on_hyphens=False):
            _print(line, markup=False)


def _status(status: str) -> str:
    return f"[{_COLOURS[status]}]{status}[/]"


def _plain(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    drawn = Table(box=None, pad_edge=False, show_header=bool(columns))
    for column in columns or ("", ""):
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*map(escape, row))
    return drawn


def systems(rows: Iterable[Document]) -> None:
    """Draw the catalog."""
    keys = ("name", "hub_id")
    _print(_plain(keys, [[row[key] for key in keys] for row in rows]))


def _patches(patches: Iterable[Document]) -> list[tuple[str, str]]:
    return [
        (f"patch {patch['name']}", ("" if patch["applied"] else "not applied: ") + patch["proof"])
        for patch in patches
    ]


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e6:.1f} MB" if nbytes >= 1e5 else f"{nbytes / 1e3:.1f} kB"


def artifact(manifest: Document) -> None:
    """Draw what an artifact is."""
    system, source = manifest["system"], manifest["source"]
    rows = [
        ("system", f"{system['name']} ({system['hub_id']}, {system['library']})"),
        ("weights", weights_named(source["label"], source["synthetic"])),
        ("licence", source["licence"]),
        *(
            ("published", f"{name} came from the catalog, not with the weights")
            for name in source["published"]
        ),
        ("input", f"pixel_values [batch, 3, {manifest['size'][0]}, {manifest['size'][1]}]"),
        *(
            (f"output {name}", str(list(shape)).replace("'", ""))
            for name, shape in manifest["outputs"].items()
        ),
        *_patches(manifest["patches"]),
    ]
    for variant in manifest["variants"]:
        batch = f", batch {variant['batch']}" if variant["batch"] else ""
        opset = f", opset {variant['opset']}, IR {variant['ir_version']}" if variant["opset"] else ""
        nodes = f", {sum(variant['operators'].values())} nodes" if variant["operators"] else ""
        rows.append((f"variant {variant['variant']}", f"{variant['file']}{batch}{opset}{nodes}"))
    golden = manifest["golden"]
    recorded = f"{', '.join(golden['images'])}; reference: {golden['reference']}" if golden else "none"
    rows.append(("recorded", recorded))
    for name, record in manifest["files"].items():
        rows.append((f"file {name}", _size(record["nbytes"]) + ", missing" * (name in manifest["missing"])))
    _print(_plain((), rows))
    if manifest["without_weights"] and WEIGHTS_FILE in manifest["missing"]:
        _print("exported without weights: complete it with `vconv fill PATH --weights WHERE`", markup=False)


def exported(document: Document) -> None:
    """Draw the result of an export."""
    counts = document["ledger"]
    peak = document["peak_rss_bytes"]
    _print(
        _plain(
            (),
            [
                ("artifact", document["artifact"]),
                ("weights", weights_named(document["weights"], document["synthetic"])),
                (
                    "tensors",
                    ", ".join(f"{number} {what}" for what, number in counts.items() if what != "tensors"),
                ),
                *_patches(document["patches"]),
                ("cost", f"{document['seconds']:.1f} s, peak memory {peak / 1e9:.2f} GB"),
            ],
        )
    )
    if document["variants"]:
        _print(_variants(document))
    else:
        _print("no variant was run: --golden none leaves the reference and its checks out")
    verb = "fill" if document["without_weights"] else "validate"
    where = "" if document["synthetic"] and verb == "validate" else " --weights WHERE"
    _print(f"next: vconv {verb} {document['artifact']}{where}", markup=False)


def _worst_output(outputs: Mapping[str, Document]) -> tuple[str, Document]:
    if not outputs:
        return "-", {}
    return max(
        outputs.items(),
        key=lambda item: (item[1]["status"] == "failed", item[1].get("vector_relative_error") or 0),
    )


def _variants(document: Document) -> Table:
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
            left, status = (first, _status(variant["status"])) if place == 0 else ([""] * len(first), "")
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


_SOURCES = {
    "live": "run here on the original's weights",
    "golden": "recorded at export; the original's weights are not here",
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
    _print(f"{document['artifact']}: weights {weights}", markup=False)
    _print(f"reference: {name}{_SOURCES[reference['source']]}", markup=False)
    for check in document["checks"]:
        if check["status"] == "failed":
            _print(f"failed: {check['name']}: {check['detail']}", markup=False)
    _print(f"limits: {document['limits']['within']}", markup=False)
    for row in document["diagnosis"]:
        _print(f"{row['class']}: {row['meaning']} ({row['where']}: {row['because']})", markup=False)
    if document["variants"]:
        _print(_variants(document))
    else:
        _print("nothing was recorded, and the original is not here: give --weights WHERE")
    for variant in document["variants"]:
        for skipped in variant["skipped_batches"]:
            _print(
                f"  {variant['variant']}: batch {skipped['batch']} not timed: {skipped['reason']}",
                markup=False,
            )
        if variant["timing_refused"]:
            _print(f"  {variant['variant']}: not timed: {variant['timing_refused']}", markup=False)
        found = [
            f"{key}: {reason}" for key, row in variant["outputs"].items() for reason in row.get("reasons", ())
        ]
        for line in found or [variant["reason"]] * bool(variant["reason"]):
            _print(f"  {variant['variant']}: {line}", markup=False)
    _wrapped(_speed_ups(document), *sentences.fastest(document["ranking"]))
    if document["published"]:
        _print(_published(document["published"]))
    counts = {status: sum(check["status"] == status for check in document["checks"]) for status in _COLOURS}
    _print("checks: " + ", ".join(f"{number} {status}" for status, number in counts.items() if number))
    for check in document["checks"]:
        if check["status"] == "skipped":
            _print(f"  {check['status']}: {check['name']}: {check['detail']}", markup=False)
    _print(f"report: {document['report']}", markup=False)
    _print(_status(document["status"]))


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
        drawn.add_row(*map(escape, names), *numbers, _status(row["status"]))
    _print(drawn)
    for row in document["rows"]:
        if row["timing_refused"]:
            _print(f"  {row['artifact']}: {row['variant']}: not timed: {row['timing_refused']}", markup=False)
    _wrapped(sentences.winner(document))
    _print(f"  limits: {document['limits']['within']}", markup=False)
    for path, label in document["weights"].items():
        reference = _SOURCES[document["references"][path]]
        _print(f"  {path}: {document['statuses'][path]}; weights {label}", markup=False)
        _print(f"    reference: {reference}", markup=False)
    for check in document["checks"]:
        _print(f"  {check['status']}: {check['artifact']}: {check['name']}: {check['detail']}", markup=False)
    _print(_status(document["status"]))


def filled(document: Document) -> None:
    """Draw the result of filling an artifact."""
    size, digest = _size(document["nbytes"]), document["sha256"][:12]
    _print(f"{document['artifact']} has its weights: {size}, sha256 {digest}", markup=False)
    _print(f"next: vconv validate {shlex.quote(document['artifact'])}", markup=False)


BAR_DECADES = (-9.0, 0.0)
"""Powers of ten between which a distance is drawn as a bar of :data:`BAR_WIDTH` characters."""
BAR_WIDTH = 27
SHOWN_OPERATORS = 8


def _bar(value: float | None) -> str:
    """Draw a distance on a logarithmic scale; what JSON cannot hold, such as infinity, fills it."""
    low, high = BAR_DECADES
    power = high if value is None else math.log10(max(value, 10**low))
    return "█" * round(BAR_WIDTH * (min(power, high) - low) / (high - low))


def selftested(document: Document) -> None:
    """Draw what became of each fault that was made on purpose."""
    for artifact in document["artifacts"]:
        _print(artifact, markup=False)
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for column in ("fault", "class", "caught in"):
        drawn.add_column(column, overflow="fold")
    rows: dict[str, list[Document]] = {}
    for row in document["faults"]:
        rows.setdefault(row["fault"], []).append(row)
    for fault, tried in rows.items():
        caught = sum(row["caught"] and row["class"] == row["expected"] for row in tried)
        named = ", ".join(dict.fromkeys(row["class"] or "-" for row in tried))
        drawn.add_row(escape(fault), escape(named), f"{caught} of {len(tried)}")
    _print(drawn)
    for row in document["faults"]:
        if not row["caught"] or row["class"] != row["expected"]:
            what = (
                f"named {row['class'] or 'nothing'}, not {row['expected']}" if row["caught"] else "NOT CAUGHT"
            )
            _print(f"{row['artifact']}: {row['fault']}: {what}", markup=False)
    for alarm in document["alarms"]:
        found = ", ".join((*alarm["failed_checks"], *alarm["failed_variants"])) or alarm["status"]
        _print(f"false alarm: {alarm['artifact']}, clean run {alarm['run'] + 1}: {found}", markup=False)
    _print(f"clean runs: {document['clean_runs']}, false alarms: {document['false_alarms']}")
    _print(_status(document["status"]))


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def bisected(document: Document) -> None:
    """Draw where a variant departs: error against depth, and the operators of the worst stage."""
    weights = weights_named(document["weights"], document["synthetic"])
    _print(f"{document['artifact']}: weights {weights}", markup=False)
    reference = document["reference"]
    _print(f"reference: {reference['name']}, fp32 on cpu", markup=False)
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    drawn.add_column("stage", no_wrap=True)
    for column in ("of its own", "in all"):
        drawn.add_column(column, justify="right", no_wrap=True)
    drawn.add_column("in all, from 1e-9 to 1", no_wrap=True)
    for row in document["stages"]:
        worst = row["stage"] == document["worst_stage"]
        style = "bold" if worst else ""
        drawn.add_row(
            row["stage"] + " *" * worst,
            _figure(row["own"]),
            _figure(row["total"]),
            _bar(row["total"]),
            style=style,
        )
    _print(drawn)
    operators = [row for row in document["operators"] if not row["agrees"]][:SHOWN_OPERATORS]
    if operators:
        _print(f"operators of {document['worst_stage']} that depart, in order:", markup=False)
        columns = ("operator", "node", "error", "nearest in the reference")
        _print(
            _plain(
                columns,
                [
                    (row["operator"], row["node"], _figure(row["error"]), row["counterpart"] or "-")
                    for row in operators
                ],
            )
        )
    for line in textwrap.wrap(document["sentence"], 100, break_on_hyphens=False, break_long_words=False):
        _print(line, markup=False)
    _print(f"picture: {document['picture']}", markup=False)
    _print(_status(document["status"]))
