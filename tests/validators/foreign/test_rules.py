"""The checks of a graph that another exporter wrote, on small graphs made by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from vconv.validators.foreign.rules import gelus


def model(nodes: Sequence[NodeProto], **numbers: float) -> onnx.ModelProto:
    """Return a graph with these nodes and numbers, from x to y."""
    constants = [numpy_helper.from_array(np.float32(value), name) for name, value in numbers.items()]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "y")]
    graph = helper.make_graph(list(nodes), "g", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def node(operator: str, inputs: str, output: str, **attributes: str) -> NodeProto:
    return helper.make_node(operator, inputs.split(), [output], **attributes)


ERF = [
    *(node("Div", "x root", "a"), node("Erf", "a", "b"), node("Add", "b one", "c")),
    *(node("Mul", "x c", "d"), node("Mul", "d half", "y")),
]
TANH = [
    *(node("Mul", "x x", "a"), node("Mul", "a x", "b"), node("Mul", "b cubic", "c"), node("Add", "x c", "d")),
    *(node("Mul", "d scale", "e"), node("Tanh", "e", "f"), node("Add", "f one", "g")),
    *(node("Mul", "x g", "h"), node("Mul", "h half", "y")),
]
NUMBERS = {"root": 2**0.5, "one": 1.0, "half": 0.5, "cubic": 0.044715, "scale": (2 / np.pi) ** 0.5}


@pytest.mark.parametrize(
    ("nodes", "form"),
    [
        (ERF, "exact"),
        ([node("Gelu", "x", "y")], "exact"),
        ([node("Gelu", "x", "y", approximate="none")], "exact"),
        ([node("Gelu", "x", "y", approximate="tanh")], "tanh"),
        (TANH, "tanh"),
        ([helper.make_node("FastGelu", ["x"], ["y"], domain="com.microsoft")], "tanh"),
        ([helper.make_node("BiasGelu", ["x", "x"], ["y"], domain="com.microsoft")], "exact"),
        ([helper.make_node("QuickGelu", ["x"], ["y"], domain="com.microsoft")], "sigmoid"),
        ([node("Mul", "x quick", "a"), node("Sigmoid", "a", "b"), node("Mul", "x b", "y")], "sigmoid"),
    ],
    ids=("erf", "operator", "none", "tanh", "spelled", "fast", "bias", "quick", "sigmoid"),
)
def test_a_gelu_is_counted_by_its_form(nodes: list[NodeProto], form: str) -> None:
    assert gelus(model(nodes, **NUMBERS, quick=1.702)) == {form: 1}


def test_a_factor_in_a_constant_node_counts_too() -> None:
    constant = helper.make_node(
        "Constant", [], ["cubic"], value=numpy_helper.from_array(np.float32(0.044715))
    )
    numbers = {name: value for name, value in NUMBERS.items() if name != "cubic"}
    assert gelus(model([constant, *TANH], **numbers)) == {"tanh": 1}


def test_a_graph_without_a_gelu_has_none() -> None:
    assert not gelus(model([node("Relu", "x", "y")]))
