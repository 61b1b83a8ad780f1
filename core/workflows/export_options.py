"""The options of `vconv export`, checked before any file is read or made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vconv.convert.ascend import operators
from vconv.convert.graphs import tracing
from vconv.convert.sources.asked_outputs import read_outputs
from vconv.convert.sources.sizes import SizeRequest
from vconv.errors import InputError, UnknownNameError
from vconv.precisions import REDUCED_PRECISIONS
from vconv.runtime.inputs.images import require_seed


def check_options(
    batch: int,
    opset: int,
    npu_opset: int | None,
    seed: int,
    photographs: bool,
    golden: bool,
    out: str | Path | None,
) -> None:
    """Refuse options that cannot be met, before any file is read or made."""
    if not 1 <= batch <= tracing.GREATEST_BATCH:
        raise InputError(
            "--batch is out of range",
            got=batch,
            expected=f"1 to {tracing.GREATEST_BATCH}",
            fix="give a whole number",
        )
    require_seed(seed)
    if photographs and not golden:
        raise InputError(
            "--images is not used with --golden none",
            got="both",
            expected="one of them: no image is run without recorded outputs",
            fix="leave one of them out",
        )
    if out is not None and not str(out):
        raise InputError("--out is empty", got="''", expected="a folder", fix="name one, or leave --out out")
    if not tracing.LEAST_OPSET <= opset <= tracing.GREATEST_OPSET:
        raise InputError(
            "the opset is not supported",
            got=opset,
            expected=f"{tracing.LEAST_OPSET} to {tracing.GREATEST_OPSET}",
            fix="leave --opset out",
        )
    if npu_opset is not None and npu_opset not in operators.NPU_OPSETS:
        raise InputError(
            "the opset for the NPU is not supported",
            got=npu_opset,
            expected=f"one of {', '.join(map(str, operators.NPU_OPSETS))}",
            fix=f"give --npu-opset {_nearest_opsets(npu_opset)}, or leave it out",
        )


def _nearest_opsets(asked: int) -> str:
    """Return the supported opsets for an NPU that are nearest to another: ``15 or 17``."""
    least = min(abs(opset - asked) for opset in operators.NPU_OPSETS)
    return " or ".join(str(opset) for opset in operators.NPU_OPSETS if abs(opset - asked) == least)


def size_request(size: str | Sequence[int] | None) -> SizeRequest | None:
    """Read the value of ``--size``."""
    if size is None:
        return None
    return SizeRequest.read(size if isinstance(size, str) else ",".join(map(str, size)))


def asked_outputs(outputs: str | Sequence[str] | None) -> tuple[str, ...]:
    """Read the value of ``--outputs``."""
    if outputs is None:
        return ()
    return read_outputs(outputs if isinstance(outputs, str) else ",".join(outputs))


def reduced_precisions(
    names: Sequence[str],
    max_drop: float | None,
    calibrated: bool,
    kept_dtype: bool,
    without_weights: bool,
    judged: bool = True,
) -> tuple[str, ...]:
    """Return the reduced precisions that are asked for, in the order of their table.

    Args:
        names: the values of ``--precision``; ``auto`` stands for ``mixed``.
        max_drop: the value of ``--max-drop``.
        calibrated: whether there are calibration images.
        kept_dtype: whether weights are stored in the type that they came in.
        without_weights: whether the weights file will be left out.
        judged: whether variants are compared with the reference.

    Raises:
        InputError: two options exclude each other, or a value is out of range.
        UnknownNameError: there is no such precision.
    """
    known = [precision.asked for precision in REDUCED_PRECISIONS.values()]
    for name in names:
        if name not in known:
            raise UnknownNameError("precision", name, known, fix="name some of those, separated by commas")
    found = tuple(name for name, precision in REDUCED_PRECISIONS.items() if precision.asked in names)
    planned = [name for name in found if REDUCED_PRECISIONS[name].planned]
    for option, given in (("--max-drop", max_drop is not None), ("--calibration", calibrated)):
        if given and not planned:
            raise InputError(
                f"{option} is used with --precision auto, int8 or int8-dynamic",
                got=f"--precision {','.join(names)}" if names else "no --precision",
                expected="a precision that is planned on images",
                fix=f"leave {option} out, or add such a --precision",
            )
    refused = {"--keep-dtype": kept_dtype, "--without-weights": without_weights, "--golden none": not judged}
    for option, given in refused.items():
        if given and found:
            raise InputError(
                f"--precision is not used with {option}",
                got="both",
                expected="one of them",
                fix="leave one of them out",
            )
    if max_drop is not None and not 0 < max_drop < 1:
        raise InputError(
            "--max-drop is out of range",
            got=max_drop,
            expected="a share of more than 0 and less than 1",
            fix="give the greatest share that may be lost, such as 0.05",
        )
    return found
