"""Draws a summary of an artifact for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from rich.table import Table
from rich.text import Text

from vconv.artifact.records import AxisRecord
from vconv.artifact.results import TIME
from vconv.cli.render.artifacts import patched
from vconv.cli.render.base import (
    GAP,
    Cell,
    Document,
    FoldedText,
    coloured,
    marked,
    pairs,
    show,
    sized,
    table,
    wrapped,
)
from vconv.cli.render.commands import next_command
from vconv.cli.render.reductions import reductions
from vconv.types import (
    BATCH_AXIS,
    CHANNELS,
    HEIGHT_AXIS,
    INPUT,
    WEIGHTS_FILE,
    WIDTH_AXIS,
    weights_named,
)


def artifact(document: Document) -> None:
    """Draw the description of an artifact and its newest reports."""
    source, golden = document["source"], document["golden"]
    _headline(document)
    show("")
    show(
        pairs(
            [
                *_origin(document),
                *_inputs(document),
                *_outputs(_shapes(document), document["meanings"]),
                *patched(document["patches"]),
                ("recorded", _recorded(golden)),
            ]
        )
    )
    for name in source["from_catalog"]:
        marked("note", f"{name} came from the catalog, not with the weights")
    for prefix in source["prefixes"]:
        marked("note", f"{prefix} was removed from the names of the tensors: a training tool had added it")
    if source["state_dict"]:
        marked("note", f"the weights are the entry {source['state_dict']} of a training checkpoint")
    if source["layout"]:
        marked("note", f"the weights were converted from the layout of {source['layout']}")
    if document["positions"]:
        marked("note", _positions(document["positions"]))
    for loss in source["losses"]:
        marked("warning", f"this conversion changed the outputs: {loss}")
    if document["authors"]:
        marked("note", f"{document['authors']['path']} has the weights for the authors' own code")
        for loss in document["authors"]["losses"]:
            marked("warning", f"with the authors' code, the outputs are not the artifact's: {loss}")
    show("")
    _variants(document)
    show("")
    _validations(document)
    show("")
    _files(document)
    if document["tensors"] is not None:
        show("")
        _tensors(document["tensors"])


def _tensors(lines: Sequence[Document]) -> None:
    """Draw one line for each tensor of the source."""
    longest = max((len(line["action"]) for line in lines), default=0)
    for line in lines:
        shape = f"{line['dtype']} {_shape(line['shape'])}"
        to = f" -> {', '.join(line['targets'])}" if line["targets"] else ""
        why = f": {line['proof']}" if line["proof"] else ""
        wrapped(f"{line['action']:{longest}} {line['source']} {shape}{to}{why}")


def _positions(found: Document) -> str:
    grids = " to ".join("{}x{}".format(*found[name]) for name in ("stored", "grid"))
    when = "once, in this artifact" if found["at"] == "export" else "whenever the model runs"
    whose = {"authors": "the authors"}.get(found["by"], found["by"])
    what = f"the position embedding is resampled from {grids} patches {when}"
    return f"{what}, by the kernel of {whose}: {found['kernel']}"


def _headline(document: Document) -> None:
    files = document["files"]
    nbytes = sum(record["nbytes"] for record in files.values())
    show(Text(document["system"]["name"], "bold"))
    size = f"{sized(nbytes)} in {len(files)} files"
    if document["complexity"]:
        size = f"{_counted(document['complexity']['parameters'])} parameters, {size}"
    wrapped(f"{size}, by vconv {document['vconv']}")


def _counted(number: int) -> str:
    """Format a number rounded to three digits, in words such as million."""
    for unit, size in (("billion", 1e9), ("million", 1e6), ("thousand", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


def _origin(document: Document) -> Iterator[tuple[str, Cell]]:
    system, source = document["system"], document["source"]
    yield "weights", weights_named(source["label"], source["synthetic"])
    if document["unlike_catalog"]:
        yield "system", _unlike(system, document["unlike_catalog"])
    else:
        yield "system", f"{system['hub_id'] or system['name']}, {system['library']}"
    if source["revision"]:
        yield "revision", source["revision"]
    yield "licence", source["licence"]


def _unlike(system: Document, found: Mapping[str, Any]) -> str:
    values = ", ".join(f"{key} {ours}, not {theirs}" for key, (ours, theirs) in found.items())
    return (
        f"a network of the family {system['family']} ({system['library']}), not the catalog's "
        f"{system['name']}: {values}"
    )


def _shape(shape: list[Any]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _inputs(document: Document) -> Iterator[tuple[str, Cell]]:
    """Lay out what the variants take: pixel values of one size or of any, or images."""
    sides = [AxisRecord.model_validate(one).told for one in document["sides"] or ()]
    axes = [HEIGHT_AXIS, WIDTH_AXIS] if sides else document["size"]
    yield "input", f"{INPUT} {_shape([BATCH_AXIS, CHANNELS, *axes])}"
    if sides:
        height, width = document["size"]
        told = " and ".join(dict.fromkeys(sides))
        yield "", f"height and width: {told}; {height} and {width} in the static graph"
    for variant in document["variants"]:
        if variant["contract"]["preprocessing"]:
            taken = variant["contract"]["input"]
            shape = f"{taken['name']} {_shape(taken['shape'])}, {taken['dtype']}"
            yield "", f"{shape}: images of any size, in {variant['variant']}"


def _shapes(document: Document) -> Mapping[str, Any]:
    """Return the shape of every output; with symbols where a variant takes pixel values of any size."""
    contracts = [variant["contract"] for variant in document["variants"]]
    free = [one for one in contracts if HEIGHT_AXIS in one["axes"] and not one["preprocessing"]]
    fixed: Mapping[str, Any] = document["outputs"]
    return {name: free[0]["outputs"][name]["shape"] for name in fixed} if free else fixed


def _outputs(outputs: Mapping[str, Any], meanings: Mapping[str, str]) -> Iterator[tuple[str, Cell]]:
    """Lay out the outputs; neighbouring outputs of equal shape share a row, unless they have a meaning."""
    title = "outputs"
    for (shape, meaning), names in groupby(
        outputs, lambda name: (list(outputs[name]), meanings.get(name, ""))
    ):
        yield title, f"{', '.join(names)} {_shape(shape)}" + f": {meaning}" * bool(meaning)
        title = ""


def _recorded(golden: Document | None) -> str:
    if golden is None:
        return "none"
    return f"{', '.join(golden['images'])}; reference: {golden['reference']}"


def _variants(document: Document) -> None:
    rows = []
    for variant in document["variants"]:
        batch = "any" if variant["batch"] is None else str(variant["batch"])
        opset = f"{variant['opset']}, {variant['ir_version']}" if variant["opset"] else "-"
        nodes = str(sum(variant["operators"].values())) if variant["operators"] else "-"
        rows.append([variant["variant"], variant["engine"], batch, opset, nodes])
    show(table(["variant", "engine"], ["batch", "opset, IR", "operators"], rows))
    for what, told in reductions(document["variants"]):
        wrapped(f"  {what}: {told}")
    for variant in document["variants"]:
        if variant["offline"]:
            wrapped(f"  {variant['variant']}: {_compiled(variant, document['files'])}")


def _compiled(variant: Document, files: Document) -> str:
    """Return a description of how an offline model is compiled."""
    offline = variant["offline"]
    gears = f", gears {', '.join(map(str, offline['gears']))}" if offline["gears"] else ""
    if offline["gears_size"]:
        gears = f", gears {', '.join('x'.join(map(str, size)) for size in offline['gears_size'])}"
    later = "" if variant["file"] in files else "; not hashed: the script beside it makes it later"
    return f"{variant['file']}, {offline['soc']}, {offline['precision_mode']}{gears}{later}"


def _validations(document: Document) -> None:
    """Draw the newest reports: status, time, devices, and the fastest variant."""
    if document["reports_trouble"]:
        marked("warning", document["reports_trouble"])
    elif not document["reports"] and WEIGHTS_FILE in document["missing"]:
        show("not validated yet")
    elif not document["reports"]:
        next_command("not validated yet:", "validate", document)
    if not document["reports"]:
        return
    drawn = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), show_header=False)
    for report in document["reports"]:
        first, *others = _report(report)
        status = "problem" if report["trouble"] else report["status"]
        drawn.add_row(coloured(status), report["kind"], FoldedText(first))
        for line in others:
            drawn.add_row("", "", FoldedText(line))
    show(drawn)


def _report(report: Document) -> Iterator[str]:
    when = datetime.strptime(report["time"], TIME).strftime("%Y-%m-%d %H:%M UTC")
    simulated = " (simulated)" * report["simulated"]
    if report["trouble"]:
        yield f"{when}{simulated}; {report['file']}: {report['trouble']}"
        return
    yield f"{when} on {', '.join(report['devices'])}{simulated}"
    for best in report["fastest"]:
        named = f"{best['variant']} ({best['engine']}) on {best['device']}"
        yield f"least p50: {best['p50_ms']:.4g} ms at batch {best['batch']}, {named}"
    if report["not_ranked"]:
        yield f"speed not ranked: {report['not_ranked']}"
    if report["winner"]:
        winner = report["winner"]
        other = f" of {winner['artifact']}" * (winner["artifact"] != report["artifact"])
        yield f"winner: {winner['variant']} ({winner['engine']}){other}"


def _files(document: Document) -> None:
    states = {
        **dict.fromkeys(document["missing"], "missing"),
        **dict.fromkeys(document["altered"], "altered"),
    }
    files = {name: sized(record["nbytes"]) for name, record in document["files"].items()}
    rows: list[list[Cell]] = [
        [name, size, coloured(states[name]) if name in states else ""] for name, size in files.items()
    ]
    total = sum(record["nbytes"] for record in document["files"].values())
    rows.append([FoldedText("total", "bold"), sized(total), ""])
    show(table(["file"], ["size", "<"], rows))
    for name, nbytes in document["altered"].items():
        marked(
            "warning", f"{name} has {nbytes} bytes, not {document['files'][name]['nbytes']}: fetch it again"
        )
    if WEIGHTS_FILE in document["missing"]:
        title = "exported without weights" if document["without_weights"] else "its weights are missing"
        next_command(f"{title}; complete it:", "fill", document)
