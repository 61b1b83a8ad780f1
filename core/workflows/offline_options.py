"""The export options of offline models. Graphs are always made; an offline model only on request."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from vconv.artifact.manifest import Manifest
from vconv.convert.ascend import operators
from vconv.convert.ascend.atc import CompileOrder
from vconv.convert.ascend.chips import HOW_NAMED, remarks
from vconv.convert.ascend.gears import Size, require_one_kind
from vconv.convert.ascend.routes import ROUTES
from vconv.errors import InputError, UnknownNameError
from vconv.types import Say, silent

ONNX = "onnx"
FORMATS = (ONNX, *ROUTES)
"""The values of ``--format``: graphs only, or also an offline model, by one of the routes to it."""


def offline_order(
    format: str,
    soc: str | None,
    gears: Sequence[int],
    precision: str | None,
    without_weights: bool,
    opset: int,
    say: Say = silent,
    gears_size: Sequence[Size] = (),
    any_size: bool = False,
) -> CompileOrder | None:
    """Return how to compile the offline model; None if none is requested.

    Args:
        format: the value of ``--format``: see :data:`FORMATS`.
        soc: the processor to compile for.
        gears: the batches of the offline model.
        precision: the precision of the offline model; None for the default of the processor.
        without_weights: whether the weights file is left out.
        opset: the opset of the dynamic graph.
        say: receives the default precision, and a doubt whether the processor computes in it.
        gears_size: the sizes of images of the offline model.
        any_size: whether the dynamic graph takes images of any size.

    Raises:
        InputError: an option is missing, out of range, or conflicts with another option.
        UnknownNameError: there is no such format or precision.
    """
    if format not in FORMATS:
        raise UnknownNameError("format", format, FORMATS, fix="choose one of those")
    require_one_kind(gears, gears_size)
    given: dict[str, object] = {"--soc": soc, "--gears": gears, "--gears-size": gears_size}
    given |= {"--om-precision": precision}
    named = [name for name, value in given.items() if value]
    if format == ONNX and named:
        raise InputError(
            f"{named[0]} is only for an offline model",
            got=f"--format {ONNX}",
            expected=f"--format {' or '.join(ROUTES)}",
            fix=f"add --format {next(iter(ROUTES))}, or leave {named[0]} out",
        )
    if format == ONNX:
        return None
    if soc is None:
        raise InputError(
            f"--format {format} needs the name of a processor",
            got="no --soc",
            expected="a name such as Ascend910B4 or Ascend310P3",
            fix=f"add --soc; to find it, {HOW_NAMED}",
        )
    if without_weights:
        raise InputError(
            f"--format {format} and --without-weights exclude each other",
            got="both",
            expected="one of them: an offline model contains its weights",
            fix="leave one of them out",
        )
    if any_size and gears:
        raise InputError(
            "--gears is not used with --size dynamic",
            got="both",
            expected="one of them: ATC takes gears of batches or of sizes, not both",
            fix="leave --gears out, or give --gears-size instead",
        )
    if gears_size and not any_size:
        raise InputError(
            "--gears-size needs a graph for images of any size",
            got="no --size dynamic",
            expected="the graph that --size dynamic makes: every gear is compiled from it",
            fix="add --size dynamic",
        )
    if (gears or gears_size) and opset > operators.GREATEST_OPSET:
        raise InputError(
            f"--gears{'-size' * bool(gears_size)} needs an opset that ATC can compile",
            got=f"--opset {opset}",
            expected=f"{operators.GREATEST_OPSET} at most",
            fix="leave --opset out",
        )
    order = CompileOrder.of(soc, precision, gears, gears_size, ROUTES[format])
    for remark in remarks(soc, precision):
        say(remark)
    return order


def offline_row(made: Manifest) -> dict[str, Any] | None:
    """Describe an artifact's offline model and whether it is compiled; None if the artifact has none."""
    for record in made.variants:
        if record.offline:
            graph = (PurePosixPath(record.path).parent / ROUTES[record.offline.route].graph).as_posix()
            compiled = record.path in made.files
            lacks = None if compiled else "atc on PATH" if graph in made.files else "torchair"
            named = {"variant": record.variant, "file": record.path, "compiled": compiled, "lacks": lacks}
            return {**named, **record.offline.model_dump(mode="json")}
    return None
