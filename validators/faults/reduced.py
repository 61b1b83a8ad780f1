"""Faults of graphs in reduced precision: of float16 graphs, and of quantised ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import helper, numpy_helper

from vconv.convert.files.safetensors_file import TensorEntry, read_header
from vconv.convert.reduced.quantised_weights import SCALE, WHOLE
from vconv.types import WEIGHTS_FILE, Array
from vconv.validators.faults.base import Fault
from vconv.validators.faults.workshop import ArtifactCopy

FLOAT16, INT8 = "fp16/model.onnx", "int8/model.onnx"
_GREAT = 60000.0
"""A factor that takes nearly every value beyond float16, and can be undone."""


def _overflow(shop: ArtifactCopy) -> None:
    """Multiply the sum in the middle of the graph by a great number, and divide it by the same."""
    model = shop.graph(FLOAT16)
    graph = model.graph
    sums = [node for node in graph.node if node.op_type == "Add"]
    node = sums[len(sums) // 2]
    (name,) = node.output
    inner, great = f"{name}_inner", f"{name}_great"
    node.output[0] = inner
    for key, value in (("great", _GREAT), ("small", 1 / _GREAT)):
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.float16), f"{name}_factor_{key}"))
    place = list(graph.node).index(node) + 1
    for pair in (
        helper.make_node("Mul", [great, f"{name}_factor_small"], [name], f"{name}_back"),
        helper.make_node("Mul", [inner, f"{name}_factor_great"], [great], f"{name}_there"),
    ):
        graph.node.insert(place, pair)
    shop.save_graph(FLOAT16, model)


def _constant_changed(place: int, change: Callable[[Array], Array]) -> Callable[[ArtifactCopy], None]:
    """Return a fault that changes a constant of one quantised activation, in the middle of the graph.

    Args:
        place: the input of ``QuantizeLinear`` that is changed: its scale, or its zero point.
        change: makes the wrong constant.
    """

    def inject(shop: ArtifactCopy) -> None:
        model = shop.graph(INT8)
        found = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
        name = found[len(found) // 2].input[place]
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
        before = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(np.asarray(change(before)).astype(before.dtype), tensor.name))
        shop.save_graph(INT8, model)

    return inject


def _one_scale(shop: ArtifactCopy) -> None:
    """Quantise the weight in the middle of the file anew, with one scale for all of its outputs."""
    path = f"int8/{WEIGHTS_FILE}"
    entries = read_header(shop.folder / path)
    names = sorted(name.removesuffix(WHOLE) for name in entries if name.endswith(WHOLE))
    name = names[len(names) // 2]
    whole, scale = entries[name + WHOLE], entries[name + SCALE]
    scales = _read(scale, np.float32)
    weight = _read(whole, np.int8) * scales
    shared = np.full_like(scales, scales.max())
    content = bytearray((shop.folder / path).read_bytes())
    for entry, value in ((whole, np.rint(weight / shared).astype(np.int8)), (scale, shared)):
        content[entry.offset : entry.offset + entry.nbytes] = value.tobytes()
    shop.write(path, bytes(content))


def _read(entry: TensorEntry, kind: type) -> Array:
    return np.frombuffer(b"".join(entry.chunks()), kind).reshape(entry.shape)


def _lacks(path: str) -> Callable[[ArtifactCopy], str]:
    return lambda shop: "" if path in shop.made.files else f"it has no {path}"


FAULTS = (
    Fault("an overflow in a float16 graph", "overflow", _overflow, _lacks(FLOAT16), of_reduced=True),
    Fault(
        "a quantised range that cuts values off",
        "saturation",
        _constant_changed(1, lambda value: value / 4),
        _lacks(INT8),
        of_reduced=True,
    ),
    Fault(
        "a wrong zero point in a quantised graph",
        "zero point",
        _constant_changed(2, lambda value: (value.astype(int) + 16) % 256),
        _lacks(INT8),
        of_reduced=True,
    ),
    Fault(
        "one scale for all outputs of a quantised weight", "scale", _one_scale, _lacks(INT8), of_reduced=True
    ),
)
