from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from vconv.convert.graphs.schemas import misfit

SHAPE = (2, 8)


def a_model() -> ModelProto:
    """A norm and a Reshape, in opset 17."""
    names = {"x": SHAPE, "scale": SHAPE[1:], "y": SHAPE}
    x, _, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, names[name]) for name in names)
    weight = TensorProto(name="scale", data_type=TensorProto.FLOAT, dims=SHAPE[1:])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="no such file")
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], SHAPE)
    nodes = [
        helper.make_node("LayerNormalization", ["x", "scale"], ["normal"]),
        helper.make_node("Reshape", ["normal", "shape"], ["y"], allowzero=1),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y], [weight, shape])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def spell_out(model: ModelProto, opset: int) -> None:
    """Declare an opset without LayerNormalization, and use none."""
    model.graph.node[0].op_type = "Mul"
    model.opset_import[0].version = opset


def lose_inputs(model: ModelProto) -> None:
    del model.graph.node[0].input[:]


WRONG: dict[str, tuple[Callable[[ModelProto], object], str]] = {
    "an operator of a later opset": (
        lambda model: setattr(model.opset_import[0], "version", 16),
        "No Op registered for LayerNormalization",
    ),
    "an attribute of a later opset": (
        lambda model: spell_out(model, 13),
        "Unrecognized attribute: allowzero",
    ),
    "an IR version below the opset's": (
        lambda model: setattr(model, "ir_version", 7),
        "opset 17 needs IR version 8, and the graph declares 7",
    ),
    "too few inputs": (lose_inputs, "has input size 0 not in range"),
    "a type that the operator does not take": (
        lambda model: setattr(model.graph.input[0].type.tensor_type, "elem_type", TensorProto.INT64),
        "LayerNormalization () of opset 17 takes no tensor(int64) as its X",
    ),
    "two types that should be one": (
        lambda model: setattr(model.graph.input[0].type.tensor_type, "elem_type", TensorProto.FLOAT16),
        "LayerNormalization () of opset 17 takes no tensor(float) as its Scale",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_misfit_is_found_and_said_in_one_line(name: str) -> None:
    change, said = WRONG[name]
    model = a_model()
    change(model)
    assert said in misfit(model)
    assert "\n" not in misfit(model)


def test_what_fits_is_not_changed_and_its_weights_are_not_read() -> None:
    model = a_model()
    assert misfit(model) == ""
    assert model == a_model()
    spell_out(model, 14)
    assert misfit(model) == ""


@pytest.mark.parametrize(("domain", "operator"), [("my.own", "Foo"), ("ai.onnx", "Relu")])
def test_a_graph_of_another_domain_and_one_that_spells_onnx_out_fit(domain: str, operator: str) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in ("x", "y"))
    node = helper.make_node(operator, ["x"], ["y"], domain=domain if domain == "my.own" else "")
    graph = helper.make_graph([node], "g", [x], [y])
    opsets = [helper.make_opsetid(domain, 17)]
    assert misfit(helper.make_model(graph, opset_imports=opsets, ir_version=8)) == ""


def test_shapes_are_not_judged() -> None:
    model = a_model()
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 3
    assert misfit(model) == ""
    with pytest.raises(onnx.shape_inference.InferenceError):
        onnx.shape_inference.infer_shapes(model, strict_mode=True)
