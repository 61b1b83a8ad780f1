"""Alter any one operator of a graph: to test that bisect finds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

SCALE = 1.05
"""Factor by which the output of an operator is multiplied if there is no better way to alter it."""
GREATER_EPSILON = 1e-2
_NODE, _WEIGHT = "altered_operator", "altered_weight"

Read = Callable[[onnx.TensorProto], np.ndarray]


def _another(operator: str) -> Callable[[onnx.ModelProto, onnx.NodeProto, Read], str]:
    def alter(model: onnx.ModelProto, node: onnx.NodeProto, read: Read) -> str:
        before, node.op_type = node.op_type, operator
        return f"{before} is {operator}"

    return alter


def _epsilon(model: onnx.ModelProto, node: onnx.NodeProto, read: Read) -> str:
    for attribute in node.attribute:
        if attribute.name == "epsilon":
            attribute.f = GREATER_EPSILON
    return f"{node.op_type} has epsilon {GREATER_EPSILON}"


def _weight(model: onnx.ModelProto, node: onnx.NodeProto, read: Read) -> str:
    """Double one row of the weight of a product; the weight may be read through a Transpose."""
    made = {name: other for other in model.graph.node for name in other.output}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for place, name in enumerate(node.input):
        transposed = name in made and made[name].op_type == "Transpose" and made[name].input[0] in tensors
        key = made[name].input[0] if transposed else name
        if key in tensors:
            value = np.array(read(tensors[key]), np.float32)
            value[len(value) // 2] *= 2
            value = value.T if transposed else value
            model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), _WEIGHT))
            node.input[place] = _WEIGHT
            return f"{node.op_type} reads an altered {key}"
    return _scaled(model, node, read)


def _scaled(model: onnx.ModelProto, node: onnx.NodeProto, read: Read) -> str:
    """Multiply the output of an operator; the multiplying operator is the wrong one and takes its name."""
    name = node.output[0]
    inner = f"{name}_inner"
    node.output[0] = inner
    model.graph.initializer.append(numpy_helper.from_array(np.array(SCALE, np.float32), f"{name}_scale"))
    place = list(model.graph.node).index(node)
    named, node.name = node.name, f"{node.name}_inner"
    model.graph.node.insert(place + 1, helper.make_node("Mul", [inner, f"{name}_scale"], [name], named))
    return f"the output of {node.op_type} is multiplied by {SCALE}"


ALTERATIONS: Mapping[str, Callable[[onnx.ModelProto, onnx.NodeProto, Read], str]] = {
    "Add": _another("Sub"),
    "Conv": _weight,
    "Div": _another("Mul"),
    "Erf": _another("Tanh"),
    "LayerNormalization": _epsilon,
    "MatMul": _weight,
    "Neg": _another("Abs"),
}
"""By operator: how it is altered. The output of any other operator is multiplied by :data:`SCALE`."""


def alter(model: onnx.ModelProto, name: str, read: Read) -> str:
    """Alter one node of a graph, in place.

    Args:
        model: the graph.
        name: the node's name; afterwards the wrong operator has this name.
        read: reads an initializer.

    Returns:
        A description of the change.
    """
    node = next(node for node in model.graph.node if node.name == name)
    return ALTERATIONS.get(node.op_type, _scaled)(model, node, read)
