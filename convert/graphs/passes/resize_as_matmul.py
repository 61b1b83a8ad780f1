"""Replace the cubic resampling of a position embedding by two matrix products.

OpenVINO computes some cubic resizings wrongly, and NPU compilers differ in the modes that they support.
Matrix products work everywhere. The weights stay in the checkpoint; only the two small matrices are in the
graph.

Case 1: a cubic ``Resize`` of (N, C, H, W) to static sizes, with half-pixel centres and without antialiasing:
        it becomes ``rows @ x @ columns``.
Case 2: the same with antialiasing: it becomes matrix products with the filter of torch, because only torch's
        antialiased operator is exported in this form. The coefficient in the node is ignored, because torch
        2.9 writes that of the filter without antialiasing.
Case 3: any other ``Resize``: it stays as it is. This includes a ``Resize`` by scales, because scales may
        differ from the ratio of the sizes.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from vconv.convert.graphs.passes.base import Condition, Pass, PassContext

_WANTED = {"mode": "cubic", "keep_aspect_ratio_policy": "stretch"}
_DEFAULTS = {
    "mode": "nearest",
    "coordinate_transformation_mode": "half_pixel",
    "cubic_coeff_a": -0.75,
    "keep_aspect_ratio_policy": "stretch",
}
"""ONNX's defaults of attributes that a node does not have; 0 for all other attributes."""


def cubic_matrix(size: int, resized: int, a: float = -0.75) -> NDArray[np.float32]:
    """Return the matrix (resized, size) that resamples a row by cubic convolution, edges repeated.

    Keys (1981, IEEE Trans. ASSP 29(6), 1153), with the coefficient ``a`` instead of -1/2; torch uses -3/4.
    """
    centres = (np.arange(resized) + 0.5) * size / resized - 0.5
    first = np.floor(centres).astype(int)
    matrix = np.zeros((resized, size))
    for tap in range(-1, 3):
        weight = _keys(centres - (first + tap), a)
        np.add.at(matrix, (np.arange(resized), np.clip(first + tap, 0, size - 1)), weight)
    return matrix.astype(np.float32)


def antialiased_matrix(size: int, resized: int) -> NDArray[np.float32]:
    """Return the matrix (resized, size) that resamples a row as torch does with ``antialias=True``.

    This is Pillow's bicubic filter: Keys' convolution with his coefficient -1/2, widened by the scale when
    the image shrinks, cut off at the edges, and normalised so that the weights sum to 1.
    """
    scale = size / resized
    centres, stretch = (np.arange(resized) + 0.5) * scale, max(scale, 1.0)
    weights = _keys((np.arange(size) + 0.5 - centres[:, None]) / stretch, -0.5)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def _keys(distances: NDArray[np.float64], a: float) -> NDArray[np.float64]:
    """Return the weights of Keys' cubic convolution for pixels at these distances."""
    t = np.abs(distances)
    near = (a + 2) * t**3 - (a + 3) * t**2 + 1
    far = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0.0))


def resize_as_matmul(graph: ir.Graph) -> int:
    """Replace every ``Resize`` of cases 1 and 2, in place; return how many there were."""
    found = [node for node in graph if node.op_type == "Resize" and _cubic(node)]
    for number, node in enumerate(found):
        _replace(graph, node, f"resample_{number}")
    return len(found)


def _attribute(node: ir.Node, name: str) -> object:
    attribute = node.attributes.get(name)
    return _DEFAULTS.get(name, 0) if attribute is None else attribute.value


def _static(value: ir.Value | None) -> tuple[int, ...]:
    shape = value.shape if value is not None else None
    sides = tuple(shape) if shape is not None else ()
    return tuple(side for side in sides if isinstance(side, int)) if len(sides) == 4 else ()


def _cubic(node: ir.Node) -> bool:
    before, after = _static(node.inputs[0]), _static(node.outputs[0])
    by_size = len(node.inputs) > 3 and node.inputs[3] is not None and "axes" not in node.attributes
    same = by_size and all(_attribute(node, name) == value for name, value in _WANTED.items())
    same = same and _half_pixel(node, after) and not (_plain(node) and _attribute(node, "exclude_outside"))
    return same and len(before) == len(after) == 4 and before[:2] == after[:2]


def _plain(node: ir.Node) -> bool:
    return _attribute(node, "antialias") == 0


def _half_pixel(node: ir.Node, after: tuple[int, ...]) -> bool:
    """Return whether pixel centres are at half pixels. The mode of torch 2.9 differs only at a side of 1."""
    mode = _attribute(node, "coordinate_transformation_mode")
    return mode == "half_pixel" or (mode == "pytorch_half_pixel" and min(after[2:], default=0) > 1)


def _replace(graph: ir.Graph, node: ir.Node, name: str) -> None:
    value, output = node.inputs[0], node.outputs[0]
    (*_, height, width), (*_, new_height, new_width) = _static(value), _static(output)
    a = float(_attribute(node, "cubic_coeff_a"))  # type: ignore[arg-type]
    matrix = partial(cubic_matrix, a=a) if _plain(node) else antialiased_matrix
    rows = _constant(graph, f"{name}_rows", matrix(height, new_height))
    columns = _constant(graph, f"{name}_columns", matrix(width, new_width).T.copy())
    high = ir.node("MatMul", [rows, value])
    both = ir.node("MatMul", [high.outputs[0], columns])
    high.outputs[0].name, both.outputs[0].name = f"{name}_high", output.name
    both.outputs[0].shape, both.outputs[0].type = output.shape, output.type
    ir.convenience.replace_nodes_and_values(graph, node, [node], [high, both], [output], [both.outputs[0]])


def _constant(graph: ir.Graph, name: str, array: NDArray[np.float32]) -> ir.Value:
    constant = ir.Value(
        name=name, shape=ir.Shape(array.shape), type=ir.TensorType(ir.DataType.FLOAT),
        const_value=ir.tensor(array, name=name),
    )  # fmt: skip
    graph.register_initializer(constant)
    return constant


def _cubic_left(model: ir.Model, context: PassContext) -> str:
    found = [node.name for node in model.graph if node.op_type == "Resize" and _cubic(node)]
    return f"there are {len(found)}, such as {found[0]}" if found else ""


PASS = Pass(
    "resize-as-matmul",
    lambda model, context: resize_as_matmul(model.graph) > 0,
    ensures=(Condition("no cubic Resize to given sizes", _cubic_left),),
)
