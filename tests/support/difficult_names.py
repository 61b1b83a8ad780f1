"""A small graph with all that makes names and dumps difficult."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LONG = "blocks." + "x" * 300
CHANCE = np.random.default_rng(7)
IMAGES = CHANCE.normal(size=(2, 3, 4)).astype(np.float32)
WEIGHT = CHANCE.normal(size=(6, 4)).astype(np.float32)


def node(operator: str, name: str, inputs: str, outputs: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), outputs.split(), name=name, **attributes)


def graph() -> onnx.ModelProto:
    """Return the graph: a GELU as torch exports it, a Split, an int64, and nodes with difficult names."""
    nodes = [
        node("Transpose", "fold", "w", "wt", perm=[1, 0]),
        node("MatMul", "/blocks.0/fc1/MatMul", "images wt", "fc1"),
        node("Div", "/act/Div", "fc1 root", "scaled"),
        node("Erf", "/act/Erf", "scaled", "erf"),
        node("Add", "/act/Add", "erf one", "added"),
        node("Mul", "/act/Mul", "fc1 added", "product"),
        node("Mul", "/act/Mul_1", "product half", "gelu"),
        node("Split", "split:0", "gelu", "left right", axis=2, num_outputs=2),
        node("Add", "a/b", "left right", "sum"),
        node("Neg", "a.b", "sum", "negative"),
        node("Identity", "pre_quant_norm", "negative", "same"),
        node("ArgMax", LONG, "same", "index", axis=2, keepdims=0),
        node("ReduceSum", "", "same", "scalar", keepdims=1),
    ]
    values = {"root": 2**0.5, "one": 1.0, "half": 0.5}
    weights = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in values.items()]
    weights.append(numpy_helper.from_array(WEIGHT, "w"))
    made = helper.make_graph(
        nodes,
        "hard",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, IMAGES.shape)],
        [
            helper.make_tensor_value_info("index", TensorProto.INT64, [2, 3]),
            helper.make_tensor_value_info("same", TensorProto.FLOAT, [2, 3, 3]),
            helper.make_tensor_value_info("scalar", TensorProto.FLOAT, [1, 1, 1]),
        ],
        weights,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)
