"""What an export makes beside the checkpoint: graphs always, and an offline model where one is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vconv.artifact.manifest import Manifest
from vconv.convert.ascend import operators
from vconv.convert.ascend.atc import DEFAULT_OFFLINE_PRECISION, CompileOrder
from vconv.errors import InputError, UnknownNameError

ONNX, OM = FORMATS = ("onnx", "om")
"""What can be exported: graphs, which every artifact has, and an offline model beside them."""


def offline_order(
    format: str,
    soc: str | None,
    gears: Sequence[int],
    precision: str,
    without_weights: bool,
    opset: int,
) -> CompileOrder | None:
    """Return what is to be compiled; None where no offline model is asked for.

    Args:
        format: what is exported: see :data:`FORMATS`.
        soc: the processor.
        gears: batches.
        precision: the offline model's.
        without_weights: whether the weights file is left out.
        opset: of the dynamic graph.

    Raises:
        InputError: an option is missing, is out of range, or does not go with another.
        UnknownNameError: there is no such format or precision.
    """
    if format not in FORMATS:
        raise UnknownNameError("format", format, FORMATS, fix="choose one of those")
    given = {"--soc": soc, "--gears": gears, "--om-precision": precision != DEFAULT_OFFLINE_PRECISION}
    named = [name for name, value in given.items() if value]
    if format == ONNX and named:
        raise InputError(
            f"{named[0]} has nothing to do",
            got=f"--format {ONNX}",
            expected=f"--format {OM}: it is about an offline model",
            fix=f"add --format {OM}, or leave {named[0]} out",
        )
    if format == ONNX:
        return None
    if soc is None:
        raise InputError(
            f"--format {OM} does not say for which processor",
            got="no --soc",
            expected="a name such as Ascend910B4 or Ascend310P3",
            fix="put Ascend before the name that `npu-smi info` shows",
        )
    if without_weights:
        raise InputError(
            f"--format {OM} and --without-weights exclude each other",
            got="both",
            expected="one: an offline model has its weights inside",
            fix="leave one of them out",
        )
    if gears and opset > operators.GREATEST_OPSET:
        raise InputError(
            "--gears needs a graph that ATC takes",
            got=f"--opset {opset}",
            expected=f"{operators.GREATEST_OPSET} at most",
            fix="leave --opset out",
        )
    return CompileOrder.of(soc, precision, gears)


def offline_row(made: Manifest) -> dict[str, Any] | None:
    """Say how an artifact's offline model is compiled, and whether it has been; None if it has none."""
    for record in made.variants:
        if record.offline:
            named = {"variant": record.variant, "file": record.path, "compiled": record.path in made.files}
            return {**named, **record.offline.model_dump(mode="json")}
    return None
