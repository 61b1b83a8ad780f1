from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vconv.convert.graphs.passes.base import PassContext, run_passes
from vconv.convert.graphs.passes.remove_unused import unused
from vconv.convert.graphs.passes.table import named


def constant(model: ir.Model, name: str) -> ir.Value:
    value = ir.Value(name=name, const_value=ir.tensor(np.ones(1, np.float32), name=name))
    model.graph.register_initializer(value)
    return value


def a_graph() -> ir.Model:
    """y = -x."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1]))
    node = ir.node("Neg", [x])
    node.outputs[0].name = "y"
    graph = ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 18}, name="g")
    return ir.Model(graph, ir_version=8)


def removed(model: ir.Model) -> bool:
    (result,) = run_passes(model, named(["remove-unused"]), PassContext())
    return result.modified


def test_a_constant_that_nothing_reads_is_removed() -> None:
    model = a_graph()
    constant(model, "left")
    assert unused(model) == ["left"]
    assert removed(model)
    assert list(model.graph.initializers) == []


def test_a_node_that_nothing_reads_is_removed_with_its_constant() -> None:
    model = a_graph()
    model.graph.append(ir.node("Neg", [constant(model, "read_in_vain")]))
    assert removed(model)
    assert [node.op_type for node in model.graph] == ["Neg"]
    assert list(model.graph.initializers) == []


def test_a_constant_that_is_an_output_stays() -> None:
    model = a_graph()
    model.graph.outputs.append(constant(model, "given"))
    assert not removed(model)
    assert list(model.graph.initializers) == ["given"]


def test_a_graph_that_uses_everything_stays() -> None:
    assert not removed(a_graph())
