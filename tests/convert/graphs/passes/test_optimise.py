from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vconv.convert.graphs.passes.optimise import optimise


def value(name: str) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape([2]), type=ir.TensorType(ir.DataType.FLOAT))


def constant(name: str, *, data: bool = True) -> ir.Value:
    found = value(name)
    found.const_value = ir.tensor(np.array([1, 2], np.float32), name=name) if data else None
    return found


def model(first: ir.Value, second: ir.Value, *, spare: bool = False) -> ir.Model:
    """Return the graph of x + (first + second), optionally with an unused node."""
    given, inner, made = map(value, ("x", "inner", "y"))
    nodes = [
        ir.Node("", "Add", [first, second], outputs=[inner]),
        ir.Node("", "Add", [given, inner], outputs=[made]),
    ]
    if spare:
        nodes.append(ir.Node("", "Neg", [given], outputs=[value("spare")]))
    graph = ir.Graph([given], [made], nodes=nodes, initializers=[first, second], opset_imports={"": 18})
    return ir.Model(graph, ir_version=8)


def test_a_value_that_depends_on_constants_only_becomes_a_constant() -> None:
    found = model(constant("a"), constant("b"))
    assert optimise(found, 2**20)
    assert [node.op_type for node in found.graph] == ["Add"]
    (inner,) = (one for one in found.graph[0].inputs if one is not None and one.name != "x")
    assert inner.const_value is not None
    assert inner.const_value.numpy().tolist() == [2, 4]


def test_a_constant_above_the_size_is_left_as_it_is() -> None:
    found = model(constant("a"), constant("b"))
    optimise(found, 1)
    assert [node.op_type for node in found.graph] == ["Add", "Add"]


def test_a_value_that_depends_on_a_weight_without_data_stays_as_it_is() -> None:
    found = model(constant("a"), constant("weight", data=False))
    optimise(found, 2**20)
    assert [node.op_type for node in found.graph] == ["Add", "Add"]


def test_an_unused_node_is_removed() -> None:
    found = model(constant("a"), constant("weight", data=False), spare=True)
    assert optimise(found, 2**20)
    assert "Neg" not in [node.op_type for node in found.graph]


def test_a_second_run_changes_nothing() -> None:
    found = model(constant("a"), constant("b"), spare=True)
    optimise(found, 2**20)
    assert not optimise(found, 2**20)
