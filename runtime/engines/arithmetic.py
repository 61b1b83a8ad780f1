"""What an engine really computes in, found from its results.

What a graph declares is not enough: ONNX Runtime computes a float16 graph on a CPU in float32, with casts
put in, and OpenVINO's hint of float16 becomes bfloat16 on some CPUs. So two products are run, one after the
other: two matrix products, and two convolutions. The first gives ``1 + 2^-k`` and ``1``, the second the
difference of the two. It is ``2^-k`` only if k bits of fraction were kept between the products, and by the
operands of the second. Every weight and image is a power of two, which every type holds exactly, so that
nothing but those bits decides.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vconv.errors import EngineError, UnavailableError
from vconv.precisions import FP32, PRECISIONS
from vconv.runtime.engines.table import Engine, find_engine
from vconv.types import CHANNELS, INPUT, Array, Arrays

if TYPE_CHECKING:
    from vconv.runtime.devices.base import Device, Settings

MATMUL, CONVOLUTION = "matmul", "convolution"
"""The probe's outputs: (B, columns) each."""
UNKNOWN = "unknown"
"""Another arithmetic than those that are known."""


@dataclass(frozen=True)
class Kept:
    """What an arithmetic keeps of a number.

    Args:
        bits: the most bits of fraction that are asked for, and kept.
        small: whether 2^-26 is kept, which is below the least float16.
    """

    bits: int
    small: bool = True


KEPT: Mapping[str, Kept] = {
    "fp32": Kept(16),  # It keeps 23: a result may be off by some rounding of the last ones.
    "hf32": Kept(11),
    "tf32": Kept(10),
    "fp16": Kept(10, small=False),
    "bf16": Kept(7),
}
"""By arithmetic, the fullest first."""

SIZE = (4, 4)
"""(height, width) of the probe's images."""
_BATCH, _MIDDLE, _COLUMNS = 16, 32, 16
_INNER = CHANNELS * SIZE[0] * SIZE[1]
_RUNGS = sorted({kept.bits for kept in KEPT.values()})
_ONE, _PART, _SMALL = 0, 1, 2
"""Channels of the probe's images: a one, what is added to it, and what is too small for float16."""
_SHARE, _SMALL_EXPONENT, _SCALE = 5, 13, 10
"""Exponents of two: of the addend's weight, of either factor of the small number, and of the second weights,
which lift what is left into every type's range."""
_FORMAT = (17, 8)
"""ONNX opset and IR version of the probe: what the oldest runtime takes, CANN's."""
_FORMATS = {"BFLOAT16": (22, 10)}
"""By type, later ones that it needs: convolutions take bfloat16 from opset 22 on."""


def images() -> Array:
    """Make the probe's images, float32 (16, 3, 4, 4): a row for each rung, and one for the small number."""
    import numpy as np

    rows = np.zeros((_BATCH, _INNER), np.float32)
    for row in range(_BATCH):
        rung = row % (len(_RUNGS) + 1)
        if rung < len(_RUNGS):
            rows[row, _ONE], rows[row, _PART] = 1, 2.0 ** (_SHARE - _RUNGS[rung])
        else:
            rows[row, _SMALL] = 2.0**-_SMALL_EXPONENT
    return rows.reshape(_BATCH, CHANNELS, *SIZE)


def weights() -> tuple[Array, Array]:
    """Make the weights of the first product, float32 (48, 32), and of the second, (32, 16)."""
    import numpy as np

    first = np.zeros((_INNER, _MIDDLE), np.float32)
    first[_ONE] = 1
    first[_PART, ::2], first[_SMALL, ::2] = 2.0**-_SHARE, 2.0**-_SMALL_EXPONENT
    second = np.zeros((_MIDDLE, _COLUMNS), np.float32)
    for column in range(_COLUMNS):
        second[2 * column, column], second[2 * column + 1, column] = 2.0**_SCALE, -(2.0**_SCALE)
    return first, second


def read(outputs: Arrays) -> str:
    """Return the arithmetic that the probe's outputs show: of its two products, the one that keeps less.

    Returns:
        A name of :data:`KEPT`; or :data:`UNKNOWN`.
    """
    names = list(KEPT)
    found = [_of_product(outputs[product]) for product in (MATMUL, CONVOLUTION)]
    return UNKNOWN if UNKNOWN in found else max(found, key=names.index)


def _of_product(values: Array) -> str:
    """Return the arithmetic that one product's values show, (16, 16): what is left of each row."""
    import numpy as np

    wanted = np.array([*(2.0 ** (_SCALE - bits) for bits in _RUNGS), 2.0 ** (_SCALE - 2 * _SMALL_EXPONENT)])
    rows = np.resize(wanted, _BATCH)[:, None]
    kept = np.all(abs(values.reshape(_BATCH, _COLUMNS) - rows) < rows / 2, axis=1)
    rungs, small = kept[: len(_RUNGS)], bool(kept[len(_RUNGS)])
    held = int(rungs.sum())
    # Rows of one kind must agree, and from the first rung that is lost on, none can be kept.
    if not np.array_equal(kept, np.resize(kept[: len(wanted)], _BATCH)) or not rungs[:held].all():
        return UNKNOWN
    found = Kept(_RUNGS[held - 1] if held else 0, small)
    return next((name for name, one in KEPT.items() if one == found), UNKNOWN)


def graph(precision: str) -> bytes:
    """Build the probe as a serialised ONNX graph, its weights and its products in a precision.

    Raises:
        UnavailableError: no graph is of that precision.
    """
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    row = PRECISIONS.get(precision)
    if row is None or not row.onnx:
        raise UnavailableError(
            f"no graph can be asked for {precision}",
            got=precision,
            expected=f"one of {', '.join(name for name, one in PRECISIONS.items() if one.onnx)}",
            fix="use a variant in one of those",
        )
    kind = TensorProto.DataType.Value(row.onnx)
    first, second = weights()
    named = {
        "first": first,
        "second": second,
        "first_kernels": first.T.reshape(_MIDDLE, CHANNELS, *SIZE),
        "second_kernels": second.T.reshape(_COLUMNS, _MIDDLE, 1, 1),
    }
    initializers = [
        helper.make_tensor(name, kind, value.shape, _encoded(value, row.dtype), raw=True)
        for name, value in named.items()
    ]
    for name, shape in (("flat", (_BATCH, _INNER)), (CONVOLUTION + "_shape", (_BATCH, _COLUMNS))):
        initializers.append(numpy_helper.from_array(np.array(shape, np.int64), name))
    node = helper.make_node
    nodes = [
        node("Cast", [INPUT], ["images"], to=kind),
        node("Reshape", ["images", "flat"], ["rows"]),
        node("MatMul", ["rows", "first"], ["m1"]),
        node("Relu", ["m1"], ["m2"]),
        node("MatMul", ["m2", "second"], ["m3"]),
        node("Cast", ["m3"], [MATMUL], to=TensorProto.FLOAT),
        node("Conv", ["images", "first_kernels"], ["c1"]),
        node("Relu", ["c1"], ["c2"]),
        node("Conv", ["c2", "second_kernels"], ["c3"]),
        node("Cast", ["c3"], ["c4"], to=TensorProto.FLOAT),
        node("Reshape", ["c4", CONVOLUTION + "_shape"], [CONVOLUTION]),
    ]
    made = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [_BATCH, CHANNELS, *SIZE])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [_BATCH, _COLUMNS])
            for name in (MATMUL, CONVOLUTION)
        ],
        initializers,
    )
    opset, ir_version = _FORMATS.get(row.onnx, _FORMAT)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    return bytes(model.SerializeToString())


def _encoded(values: Array, dtype: str) -> bytes:
    """Write values in one of torch's types, which NumPy need not have."""
    import numpy as np
    import torch

    kind: torch.dtype = getattr(torch, dtype)
    return torch.from_numpy(np.ascontiguousarray(values)).to(kind).view(torch.uint8).numpy().tobytes()


@dataclass(frozen=True)
class _Question:
    """A question, by which its answer is kept.

    Args:
        engine: which engine is asked.
        version: of it.
        kind: of the device.
        name: of the device.
        settings: how the device is asked to compute.
        precision: what the engine is asked to compute in.
        device: the same device, to run on.
    """

    engine: Engine
    version: str
    kind: str
    name: str
    settings: Settings
    precision: str
    device: Device = field(compare=False)


def arithmetic_of(engine: str, device: Device, precision: str) -> str:
    """Ask an engine what it really computes a precision in on a device; the answer is kept for the process.

    A simulated device computes as its settings say, so that nothing has to be asked.

    Args:
        engine: its name.
        device: where.
        precision: the precision's name, as a variant has it.

    Returns:
        A name of :data:`KEPT`, or :data:`UNKNOWN`.

    Raises:
        UnavailableError: the engine cannot run there, or does not take this precision.
        EngineError: it refuses the probe in float32, which every engine must run.
    """
    if device.simulated:
        return device.arithmetic if precision == FP32 else precision
    row = find_engine(engine)
    settings, version = device.settings, row.version()
    return _asked(_Question(row, version, device.kind, device.name, settings, precision, device))


@functools.cache
def _asked(question: _Question) -> str:
    device, precision = question.device, question.precision
    try:
        return question.engine.arithmetic(device, precision)
    except EngineError as error:
        if precision == FP32:
            raise
        raise UnavailableError(
            f"{question.engine.name} computes nothing in {precision} on {device.name}",
            got=error.got,
            expected=f"products in {precision}",
            fix="use another engine, or a variant in another precision",
        ) from error
