from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir

from vconv._version import VERSION
from vconv.convert.graphs.passes.strip_metadata import strip_metadata

SECRET = "/home/somebody/model.py:12"


def noted(name: str) -> ir.Value:
    value = ir.Value(name=name, shape=ir.Shape([2]), type=ir.TensorType(ir.DataType.FLOAT), doc_string=SECRET)
    value.metadata_props["trace"] = SECRET
    return value


def node_of(given: ir.Value, made: ir.Value, **attributes: ir.Graph) -> ir.Node:
    return ir.Node(
        "",
        "If" if attributes else "Add",
        [given, given],
        [ir.AttrGraph(name, graph) for name, graph in attributes.items()],
        outputs=[made],
        doc_string=SECRET,
        metadata_props={"pkg.torch.onnx.stack_trace": SECRET},
    )


def noted_model() -> ir.Model:
    """Return a model with metadata in every place that can hold some, also in a nested graph."""
    given, inner, made, nested, weight = map(noted, ("x", "inner", "y", "nested", "w"))
    weight.const_value = ir.tensor([1.0, 2.0], name="w")
    branch = ir.Graph([], [nested], nodes=[node_of(inner, nested)], name="branch")
    graph = ir.Graph(
        [given],
        [made],
        nodes=[node_of(given, inner), node_of(inner, made, then_branch=branch)],
        initializers=[weight],
        doc_string=SECRET,
        opset_imports={"": 18},
        name=SECRET,
        metadata_props={"note": SECRET},
    )
    return ir.Model(
        graph,
        ir_version=8,
        producer_name="pytorch",
        producer_version="0.0",
        doc_string=SECRET,
        metadata_props={"note": SECRET},
    )


def test_metadata_is_there_before_the_pass_and_nowhere_after_it(tmp_path: Path) -> None:
    model = noted_model()
    ir.save(model, tmp_path / "before.onnx")
    assert strip_metadata(model)
    assert not strip_metadata(model)
    ir.save(model, tmp_path / "after.onnx")
    assert (tmp_path / "before.onnx").read_bytes().count(SECRET.encode()) >= 15
    assert SECRET.encode() not in (tmp_path / "after.onnx").read_bytes()


def test_no_protobuf_message_keeps_metadata(tmp_path: Path) -> None:
    model = noted_model()
    strip_metadata(model)
    ir.save(model, tmp_path / "after.onnx")
    written = onnx.load(tmp_path / "after.onnx")
    graph = written.graph
    messages = [written, graph, *graph.node, *graph.input, *graph.output, *graph.value_info]
    assert [message for message in messages if message.doc_string or message.metadata_props] == []


def test_the_producer_is_vconv() -> None:
    model = noted_model()
    strip_metadata(model)
    assert (model.producer_name, model.producer_version, model.graph.name) == ("vconv", VERSION, "vconv")


def test_names_operators_and_constants_stay() -> None:
    model = noted_model()
    strip_metadata(model)
    assert [node.op_type for node in model.graph] == ["Add", "If"]
    assert [value.name for value in (*model.graph.inputs, *model.graph.outputs)] == ["x", "y"]
    weight = model.graph.initializers["w"].const_value
    assert weight is not None
    assert weight.numpy().tolist() == [1.0, 2.0]
