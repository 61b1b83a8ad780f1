"""What a manifest claims of an offline model, and how its command, its script and its settings prove it.

The command that compiles the model is the evidence for the rest of the record. What this version itself would
write, the whole command, the script and the settings, is compared only in artifacts of this version: other
versions word these files otherwise.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from vconv._version import VERSION
from vconv.artifact.manifest import Manifest
from vconv.artifact.records import OfflineRecord, VariantRecord
from vconv.convert.ascend import offline_air
from vconv.convert.ascend.atc import (
    ATC,
    KEEP_DTYPE_FILE,
    MODEL_FILE,
    OFFLINE_PRECISIONS,
    OP_PRECISION_FILE,
    SCRIPT_FILE,
    CompileOrder,
)
from vconv.convert.ascend.atc_script import script
from vconv.convert.ascend.fusions.switch_file import SWITCH_FILE
from vconv.convert.ascend.gears import told
from vconv.convert.ascend.routes import ROUTES
from vconv.convert.graphs.layer_norms import layer_norms
from vconv.errors import VconvError
from vconv.types import INPUT
from vconv.validators.checks.inspected_graph import InspectedGraph

_SETTINGS = (SWITCH_FILE, KEEP_DTYPE_FILE, OP_PRECISION_FILE)
"""Every file that ATC's options refer to."""
_NORM_OPSET = 17
"""The first opset with an operator for a LayerNorm."""


def command_differs(made: Manifest) -> str:
    """Return how the record of an offline model differs from its command; empty if it does not."""
    return _first(finding for record in made.variants for finding in _of_command(made, record))


def files_differ(made: Manifest, folder: Path, graphs: Mapping[str, InspectedGraph]) -> str:
    """Return how the files beside an offline model differ from what its record asks; empty if they do not.

    Args:
        made: the manifest.
        folder: the artifact.
        graphs: by path, the graphs that keep their bounds.
    """
    return _first(finding for record in made.variants for finding in _of_files(made, record, folder, graphs))


def _first(findings: Iterator[str]) -> str:
    return next(filter(None, findings), "")


def _differs(what: str, said: object, found: object, where: str = "its command says") -> str:
    return "" if said == found else f"{what} is {said}, {where} {found}"


def _of_command(made: Manifest, record: VariantRecord) -> Iterator[str]:
    offline = record.offline
    if offline is None:
        return
    route, named = ROUTES[offline.route], f"of {record.variant}"
    precision = OFFLINE_PRECISIONS.get(offline.precision_mode)
    if precision is None:
        yield f"the precision mode {named} is {offline.precision_mode}, which ATC does not have"
        return
    identity = f"{route.name}-{precision.ending}", f"{route.name}/{MODEL_FILE}", precision.limits
    said = record.variant, record.path, record.precision
    yield _differs("the offline model", said, identity, f"its route and {precision.name} say")
    if offline.command[:1] != (ATC,):
        yield f"the command {named} does not run {ATC}"
    options = dict(part.removeprefix("--").partition("=")[::2] for part in offline.command[1:])
    shape = [length if isinstance(length, int) else -1 for length in record.contract.input.shape]
    wanted = {
        "soc_version": ("the processor", offline.soc),
        "precision_mode_v2": ("the precision mode", offline.precision_mode),
        "dynamic_batch_size": ("the list of batches", ",".join(map(str, offline.gears))),
        "dynamic_image_size": ("the list of sizes", told(offline.gears_size)),
        "framework": ("the format of the graph", route.framework),
        "model": ("the graph", route.graph),
    }
    if route.described:
        wanted["input_shape"] = ("the input", f"{INPUT}:{','.join(map(str, shape))}")
    for option, (what, value) in wanted.items():
        yield _differs(f"{what} {named}", value or "none", options.get(option) or "none")
    if made.vconv == VERSION:
        yield _unlike_order(made, record, offline)


def _unlike_order(made: Manifest, record: VariantRecord, offline: OfflineRecord) -> str:
    """Compare the whole command with what this version writes for the record."""
    try:
        order = _order(offline)
    except VconvError as error:
        return f"no offline model is made as the record of {record.variant} says: {error.what}, {error.got}"
    expected = order.command(made.size, record.batch or 1)
    odd = sorted({*offline.command} ^ {*expected})
    if odd or offline.command != expected:
        return f"the command of {record.variant} is not vconv's: {', '.join(odd) or 'another order'}"
    return ""


def _order(offline: OfflineRecord) -> CompileOrder:
    return CompileOrder.of(
        offline.soc, offline.precision_mode, offline.gears, offline.gears_size, ROUTES[offline.route]
    )


def _of_files(
    made: Manifest, record: VariantRecord, folder: Path, graphs: Mapping[str, InspectedGraph]
) -> Iterator[str]:
    offline = record.offline
    if offline is None:
        return
    place, route = folder / offline.route, ROUTES[offline.route]
    # The lines of the script that run ATC have the same form in every version.
    lines = "\n{}\n".format(" \\\n  ".join(map(shlex.quote, offline.command)))
    if (place / SCRIPT_FILE).is_file() and lines not in _text(place / SCRIPT_FILE):
        yield f"{offline.route}/{SCRIPT_FILE} does not run the command of {record.variant}"
    if made.vconv != VERSION:
        return
    try:
        order = _order(offline)
    except VconvError:
        return  # the claim of the command says it
    norms = _norms(record, order, graphs)
    settings = order.settings(norms or ())
    asked = f"{record.variant} on {offline.soc}"
    texts = {SCRIPT_FILE: script(offline.command, [*settings], route)}
    if route.maker:
        texts[route.maker] = offline_air.maker()
    for name, text in texts.items():
        if (place / name).is_file() and _text(place / name) != text:
            yield f"{offline.route}/{name} is not the script that vconv {VERSION} writes for {record.variant}"
    for name in _SETTINGS:
        if (place / name).is_file() != (name in settings):
            there = "is there" if (place / name).is_file() else "is missing"
            yield f"{offline.route}/{name} {there}, which does not fit {asked}"
        elif name in settings and not _fits(_text(place / name), settings[name], norms is None):
            yield f"{offline.route}/{name} is not what vconv {VERSION} writes for {asked}"


def _norms(
    record: VariantRecord, order: CompileOrder, graphs: Mapping[str, InspectedGraph]
) -> tuple[str, ...] | None:
    """Return the names of the nodes of LayerNorms that are spelled out; None if they are not known.

    The graph that is compiled has those of the graph that it is made from, unless the opset of the latter has
    an operator for a LayerNorm and that of the former has none.
    """
    if record.graph is None:
        return ()  # the graph of torchair has its own operator
    source = graphs.get(order.source)
    if source is None or record.graph.opset < _NORM_OPSET <= source.model.opset_imports.get("", 0):
        return None
    norms = layer_norms(source.model)
    return tuple(node.name or "" for norm in norms if len(norm.nodes) > 1 for node in norm.nodes)


def _fits(text: str, expected: str, names_follow: bool) -> bool:
    """Return whether a file of settings is the expected one; names that are not known may follow it."""
    return text == expected or (
        names_follow and text.startswith(expected) and "OpType" not in text[len(expected) :]
    )


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace")
