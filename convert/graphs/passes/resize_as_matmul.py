"""Replace the resampling of a position embedding by two matrix products.

OpenVINO computes some cubic resizings wrongly, and NPU compilers differ in the modes that they support.
Matrix products work everywhere. The weights stay in the checkpoint; only the two small matrices are in the
graph, or are computed in it if only the run knows the size.

Case 1: a cubic ``Resize`` of (N, C, H, W) to a known height and width, with half-pixel centres and without
        antialiasing: it becomes ``rows @ x @ columns``.
Case 2: the same with antialiasing: it becomes matrix products with the filter of torch, because only torch's
        antialiased operator is exported in this form. The coefficient in the node is ignored, because torch
        2.9 writes that of the filter without antialiasing.
Case 3: the same to a height or width that only the run knows: the matrices are computed in the graph, by
        :mod:`vconv.convert.graphs.passes.resampling`.
Case 4: a linear ``Resize`` of (1, C, H, W), such as a table, to a known height and width, with half-pixel
        centres and without antialiasing: it becomes two matrix products too.
Case 5: any other ``Resize`` that is cubic and has antialiasing, or is to a size that only the run knows: an
        error, because engines compute it differently.
Case 6: any other ``Resize``: it stays as it is. This includes a ``Resize`` by scales, because scales may
        differ from the ratio of the sizes.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from vconv.convert.graphs.passes.base import Condition, Pass, PassContext
from vconv.convert.graphs.passes.resampling import KEYS_ANTIALIASED, Builder, CubicFilter, resampling_matrix

_STRETCH = "stretch"
_DEFAULTS = {
    "mode": "nearest",
    "coordinate_transformation_mode": "half_pixel",
    "cubic_coeff_a": -0.75,
    "keep_aspect_ratio_policy": _STRETCH,
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


def linear_matrix(size: int, resized: int) -> NDArray[np.float32]:
    """Return the matrix (resized, size) that resamples a row linearly, edges repeated."""
    centres = (np.arange(resized) + 0.5) * size / resized - 0.5
    first = np.floor(centres).astype(int)
    matrix = np.zeros((resized, size))
    for tap in range(2):
        weight = 1 - np.abs(centres - (first + tap))
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


def resize_as_matmul(graph: ir.Graph, greatest: int = 0) -> int:
    """Replace every ``Resize`` of cases 1 to 4, in place; return how many there were.

    Args:
        graph: the graph.
        greatest: the greatest height or width of an output that only the run knows; 0 if there is none.
    """
    found = [node for node in graph if node.op_type == "Resize" and (_fixed(node) or _cubic_to_any(node))]
    for number, node in enumerate(found):
        name = f"resample_{number}"
        if _fixed(node):
            _replace(graph, node, name)
        else:
            _replace_for_any(graph, node, name, greatest)
    return len(found)


def _attribute(node: ir.Node, name: str) -> object:
    attribute = node.attributes.get(name)
    return _DEFAULTS.get(name, 0) if attribute is None else attribute.value


def _dimensions(value: ir.Value | None) -> tuple[object, ...]:
    """Return four dimensions, each a number or a symbol; an empty tuple if there are not four."""
    shape = value.shape if value is not None else None
    return tuple(shape) if shape is not None and len(shape) == 4 else ()


def _static(value: ir.Value | None) -> tuple[int, ...]:
    """Return height and width; an empty tuple if one of them is not known."""
    sides = _dimensions(value)[2:]
    return tuple(side for side in sides if isinstance(side, int)) if _known(sides) else ()


def _known(sides: tuple[object, ...]) -> bool:
    return len(sides) == 2 and all(isinstance(side, int) for side in sides)


def _fixed(node: ir.Node) -> bool:
    """Return whether a node is of case 1, 2 or 4."""
    return _to_known(node, "cubic") or (
        _to_known(node, "linear") and _plain(node) and _dimensions(node.inputs[0])[0] == 1
    )


def _to_known(node: ir.Node, mode: str) -> bool:
    after = _static(node.outputs[0])
    return bool(after) and _half_pixel(node, after) and _torchs(node, mode)


def _cubic_to_any(node: ir.Node) -> bool:
    """Return whether a node is of case 3. From two pixels on, both kinds of half pixels are the same."""
    return not _static(node.outputs[0]) and _half_pixel(node, (2, 2)) and _torchs(node, "cubic")


def _torchs(node: ir.Node, mode: str) -> bool:
    """Return whether a node is torch's interpolation of a height and width that are known, in this mode."""
    before, after = _dimensions(node.inputs[0]), _dimensions(node.outputs[0])
    by_size = len(node.inputs) > 3 and node.inputs[3] is not None and "axes" not in node.attributes
    same = by_size and _attribute(node, "mode") == mode
    same = same and _attribute(node, "keep_aspect_ratio_policy") == _STRETCH
    same = same and not (_plain(node) and _attribute(node, "exclude_outside"))
    return same and bool(after) and _known(before[2:]) and before[:2] == after[:2]


def _plain(node: ir.Node) -> bool:
    return _attribute(node, "antialias") == 0


def _half_pixel(node: ir.Node, after: tuple[int, ...]) -> bool:
    """Return whether pixel centres are at half pixels. The mode of torch 2.9 differs only at a side of 1."""
    mode = _attribute(node, "coordinate_transformation_mode")
    return mode == "half_pixel" or (mode == "pytorch_half_pixel" and min(after) > 1)


def _replace(graph: ir.Graph, node: ir.Node, name: str) -> None:
    value, output = node.inputs[0], node.outputs[0]
    (height, width), (new_height, new_width) = _static(value), _static(output)
    a = float(_attribute(node, "cubic_coeff_a"))  # type: ignore[arg-type]
    matrix = partial(cubic_matrix, a=a) if _plain(node) else antialiased_matrix
    if _attribute(node, "mode") == "linear":
        matrix = linear_matrix
    rows = _constant(graph, f"{name}_rows", matrix(height, new_height))
    columns = _constant(graph, f"{name}_columns", matrix(width, new_width).T.copy())
    high = ir.node("MatMul", [rows, value])
    both = ir.node("MatMul", [high.outputs[0], columns])
    high.outputs[0].name, both.outputs[0].name = f"{name}_high", output.name
    both.outputs[0].shape, both.outputs[0].type = output.shape, output.type
    ir.convenience.replace_nodes_and_values(graph, node, [node], [high, both], [output], [both.outputs[0]])


def _replace_for_any(graph: ir.Graph, node: ir.Node, name: str, greatest: int) -> None:
    if not greatest:
        raise ValueError(f"{node.name} resizes to a size that only the run knows, and its bound is not known")
    value, output, build = node.inputs[0], node.outputs[0], Builder(graph, name)
    assert value is not None and node.inputs[3] is not None
    a = float(_attribute(node, "cubic_coeff_a"))  # type: ignore[arg-type]
    kind = CubicFilter(a, False) if _plain(node) else CubicFilter(KEYS_ANTIALIASED, True)
    matrices = []
    for axis in (2, 3):
        first, end, along = np.array([axis]), np.array([axis + 1]), np.array([0])
        length = build.node("Slice", node.inputs[3], first, end, along)
        matrices.append(resampling_matrix(build, _static(value)[axis - 2], length, kind, greatest))
    rows, columns = matrices[0], build.node("Transpose", matrices[1], perm=(1, 0))
    both = build.node("MatMul", build.node("MatMul", rows, value), columns)
    both.name, both.shape, both.type = output.name, output.shape, output.type
    ir.convenience.replace_nodes_and_values(graph, node, [node], build.nodes, [output], [both])


def _constant(graph: ir.Graph, name: str, array: NDArray[np.float32]) -> ir.Value:
    constant = ir.Value(
        name=name, shape=ir.Shape(array.shape), type=ir.TensorType(ir.DataType.FLOAT),
        const_value=ir.tensor(array, name=name),
    )  # fmt: skip
    graph.register_initializer(constant)
    return constant


def _uncertain(node: ir.Node) -> bool:
    """Return whether a ``Resize`` is of case 5, or of a case that is replaced."""
    antialiased = _attribute(node, "mode") == "cubic" and not _plain(node)
    return _fixed(node) or antialiased or not _known(_dimensions(node.outputs[0])[2:])


def _uncertain_left(model: ir.Model, context: PassContext) -> str:
    found = [node.name for node in model.graph if node.op_type == "Resize" and _uncertain(node)]
    return f"there are {len(found)}, such as {found[0]}" if found else ""


PASS = Pass(
    "resize-as-matmul",
    lambda model, context: resize_as_matmul(model.graph, context.greatest_grid) > 0,
    ensures=(Condition("no cubic Resize with antialiasing, and none to a size of the run", _uncertain_left),),
)
