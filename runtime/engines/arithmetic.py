"""The arithmetic that an engine really computes in, found from its results.

The precision that a graph declares is not enough: ONNX Runtime computes a float16 graph on a CPU in float32,
with added casts, and OpenVINO's hint of float16 becomes bfloat16 on some CPUs. So a probe runs two products
in sequence: two matrix products, and likewise two convolutions. The first product gives ``1 + 2^-k`` and
``1``, the second product gives their difference. The difference is ``2^-k`` only if k bits of fraction were
kept between the products and in the operands of the second product. Every weight and image is a power of two,
which every type holds exactly, so only these bits decide the result.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vconv.errors import EngineError, UnavailableError
from vconv.precisions import FP32, INT8, INT8_DYNAMIC, PRECISIONS
from vconv.runtime.engines.table import Engine, find_engine
from vconv.types import CHANNELS, INPUT, Array, Arrays

if TYPE_CHECKING:
    from onnx import NodeProto

    from vconv.runtime.devices.base import Device, Settings

MATMUL, CONVOLUTION = "matmul", "convolution"
"""The probe's outputs, each of shape (B, columns)."""
UNKNOWN = "unknown"
"""An arithmetic that is not in :data:`KEPT`."""


@dataclass(frozen=True)
class Kept:
    """The part of a number that an arithmetic keeps.

    Args:
        bits: the greatest number of bits of fraction that the probe tests and the arithmetic keeps.
        small: whether the arithmetic keeps 2^-26, which is below the least float16.
    """

    bits: int
    small: bool = True


KEPT: Mapping[str, Kept] = {
    "fp32": Kept(16),  # float32 keeps 23 bits, but rounding may change the last ones.
    "hf32": Kept(11),
    "tf32": Kept(10),
    "fp16": Kept(10, small=False),
    "bf16": Kept(7),
    "int8": Kept(7, small=False),
}
"""Arithmetic -> what it keeps. The most precise arithmetic comes first."""

SIZE = (4, 4)
"""(height, width) of the probe's images."""
_BATCH, _MIDDLE, _COLUMNS = 16, 32, 16
_INNER = CHANNELS * SIZE[0] * SIZE[1]
_RUNGS = sorted({kept.bits for kept in KEPT.values()})
_ONE, _PART, _SMALL = 0, 1, 2
"""Input columns of the probe: the number one, the addend, and the number that is too small for float16."""
_SHARE, _SMALL_EXPONENT, _SCALE = 5, 13, 10
"""Exponents of two: of the addend's weight, of each factor of the small number, and of the second weights,
which scale the remaining difference into every type's range."""
_STEP = 7
"""Exponent of two of a step of an 8-bit whole number in the probe."""
_TORCH_TYPES = {"FLOAT16": "float16", "BFLOAT16": "bfloat16"}
"""ONNX's name of a narrow type -> torch's."""
_FORMAT = (17, 8)
"""ONNX opset and IR version of the probe: the ones that the oldest runtime, CANN's, takes."""
_FORMATS = {"BFLOAT16": (22, 10)}
"""Type -> the later opset and IR version that it needs: convolutions take bfloat16 from opset 22 on."""


def images() -> Array:
    """Make the probe's images, float32 (16, 3, 4, 4).

    Each tested number of bits has one row, and 2^-26 has one. These rows repeat until the batch is full.
    """
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
    """Make the weights of the first product, float32 (48, 32), and of the second product, (32, 16)."""
    import numpy as np

    first = np.zeros((_INNER, _MIDDLE), np.float32)
    first[_ONE] = 1
    first[_PART, ::2], first[_SMALL, ::2] = 2.0**-_SHARE, 2.0**-_SMALL_EXPONENT
    second = np.zeros((_MIDDLE, _COLUMNS), np.float32)
    for column in range(_COLUMNS):
        second[2 * column, column], second[2 * column + 1, column] = 2.0**_SCALE, -(2.0**_SCALE)
    return first, second


def read(outputs: Arrays) -> str:
    """Return the arithmetic that the probe's outputs show.

    If matrix products and convolutions show different arithmetics, the less precise one counts.

    Returns:
        A name in :data:`KEPT`, or :data:`UNKNOWN`.
    """
    names = list(KEPT)
    found = [_of_product(outputs[product]) for product in (MATMUL, CONVOLUTION)]
    return UNKNOWN if UNKNOWN in found else max(found, key=names.index)


def _of_product(values: Array) -> str:
    """Return the arithmetic that the values of one output show, (16, 16): the difference kept in each row."""
    import numpy as np

    wanted = np.array([*(2.0 ** (_SCALE - bits) for bits in _RUNGS), 2.0 ** (_SCALE - 2 * _SMALL_EXPONENT)])
    rows = np.resize(wanted, _BATCH)[:, None]
    kept = np.all(abs(values.reshape(_BATCH, _COLUMNS) - rows) < rows / 2, axis=1)
    rungs, small = kept[: len(_RUNGS)], bool(kept[len(_RUNGS)])
    held = int(rungs.sum())
    # Equal rows must agree. If an arithmetic loses one number of bits, it cannot keep any greater number.
    if not np.array_equal(kept, np.resize(kept[: len(wanted)], _BATCH)) or not rungs[:held].all():
        return UNKNOWN
    found = Kept(_RUNGS[held - 1] if held else 0, small)
    return next((name for name, one in KEPT.items() if one == found), UNKNOWN)


def graph(precision: str) -> bytes:
    """Build the probe as a serialised ONNX graph, with its weights and products in a precision.

    Raises:
        UnavailableError: graphs cannot have this precision.
    """
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    row = PRECISIONS.get(precision)
    if row is None or not row.onnx:
        raise UnavailableError(
            f"vconv has no probe of graphs in {precision}",
            got=precision,
            expected=f"one of {', '.join(name for name, one in PRECISIONS.items() if one.onnx)}",
            fix="use a graph in one of those",
        )
    whole = row.onnx == "INT8"
    kind = TensorProto.DataType.Value("FLOAT" if whole else row.onnx)
    first, second = weights()
    named = {
        "first": first,
        "second": second,
        "first_kernels": first.T.reshape(_MIDDLE, CHANNELS, *SIZE),
        "second_kernels": second.T.reshape(_COLUMNS, _MIDDLE, 1, 1),
    }
    if whole:
        del named["second"]
        named |= {"step": np.array(2.0**-_STEP), "second_scales": np.full(_COLUMNS, 2.0**_SCALE)}
    dtype = _TORCH_TYPES.get(row.onnx, "float32")
    initializers = [
        helper.make_tensor(name, kind, value.shape, _encoded(value, dtype), raw=True)
        for name, value in named.items()
    ]
    if whole:
        signs = (second / 2.0**_SCALE).astype(np.int8)
        initializers += [
            numpy_helper.from_array(signs, "second"),
            numpy_helper.from_array(np.array(0, np.uint8), "zero"),
        ]
    for name, shape in (("flat", (_BATCH, _INNER)), (CONVOLUTION + "_shape", (_BATCH, _COLUMNS))):
        initializers.append(numpy_helper.from_array(np.array(shape, np.int64), name))
    node = helper.make_node
    nodes = [
        node("Cast", [INPUT], ["images"], to=kind),
        node("Reshape", ["images", "flat"], ["rows"]),
        node("MatMul", ["rows", "first"], ["m1"]),
        node("Relu", ["m1"], ["m2"]),
        *_second_product(precision),
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


def _second_product(precision: str) -> list[NodeProto]:
    """Return the nodes that multiply ``m2`` by the second weights and give ``m3``.

    In whole numbers, a step of what is multiplied is 2^-7, or about as much, so that 7 bits of it are kept.
    """
    from onnx import TensorProto, helper

    node = helper.make_node
    if precision == INT8:
        return [
            node("QuantizeLinear", ["m2", "step", "zero"], ["q2"]),
            node("DequantizeLinear", ["q2", "step", "zero"], ["d2"]),
            node("DequantizeLinear", ["second", "second_scales"], ["dequantised"], axis=1),
            node("MatMul", ["d2", "dequantised"], ["m3"]),
        ]
    if precision == INT8_DYNAMIC:
        return [
            node("DynamicQuantizeLinear", ["m2"], ["q2", "step_of_run", "zero_of_run"]),
            node("MatMulInteger", ["q2", "second", "zero_of_run"], ["sums"]),
            node("Cast", ["sums"], ["wide"], to=TensorProto.FLOAT),
            node("Mul", ["second_scales", "step_of_run"], ["scales"]),
            node("Mul", ["wide", "scales"], ["m3"]),
        ]
    return [node("MatMul", ["m2", "second"], ["m3"])]


def _encoded(values: Array, dtype: str) -> bytes:
    """Return the bytes of values in one of torch's types, which NumPy may not have."""
    import numpy as np
    import torch

    kind: torch.dtype = getattr(torch, dtype)
    return torch.from_numpy(np.ascontiguousarray(values)).to(kind).view(torch.uint8).numpy().tobytes()


@dataclass(frozen=True)
class _Question:
    """A question to an engine, used as the key of the cached answer.

    Args:
        engine: the engine.
        version: the version of the engine.
        kind: the kind of the device.
        name: the name of the device.
        settings: the arithmetic that the device is set to.
        precision: the precision that the engine is asked for.
        device: the same device, to run on. It is not part of the key.
    """

    engine: Engine
    version: str
    kind: str
    name: str
    settings: Settings
    precision: str
    device: Device = field(compare=False)


def arithmetic_of(engine: str, device: Device, precision: str) -> str:
    """Return the arithmetic that an engine really uses for a precision on a device.

    The answer is cached for the process. A simulated device computes as its settings say, so no probe runs.

    Args:
        engine: the name of the engine.
        device: the device to run on.
        precision: the precision's name, as a variant has it.

    Returns:
        A name in :data:`KEPT`, or :data:`UNKNOWN`.

    Raises:
        UnavailableError: the engine cannot run on the device, or does not take this precision.
        EngineError: the engine refuses the probe in float32, which every engine must run.
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
