from __future__ import annotations

import onnx_ir as ir
import pytest

from vconv.convert.graphs.passes.name_batch import name_batch
from vconv.types import BATCH_AXIS


def value(name: str, *dims: int | str | None) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(dims), type=ir.TensorType(ir.DataType.FLOAT))


def graph_of(given: ir.Value, *made: ir.Value) -> ir.Graph:
    nodes = [ir.Node("", "Identity", [given], outputs=[each]) for each in made]
    return ir.Graph([given], made, nodes=nodes, opset_imports={"": 18})


def dims(found: ir.Value) -> list[int | str | None]:
    assert found.shape is not None
    return [dim if isinstance(dim, int) else dim.value for dim in found.shape]


def test_the_exporters_symbol_is_renamed_wherever_it_stands() -> None:
    given, first, second = value("x", "s99", 3, 8), value("y", "s99", 5), value("z", 4, "s99", "s99")
    graph = graph_of(given, first, second)
    assert name_batch(graph)
    assert not name_batch(graph)
    assert dims(given) == [BATCH_AXIS, 3, 8]
    assert dims(first) == [BATCH_AXIS, 5]
    assert dims(second) == [4, BATCH_AXIS, BATCH_AXIS]


def test_values_inside_the_graph_are_renamed() -> None:
    given, inner, made = value("x", "s99"), value("inner", "s99", 2), value("y", "s99")
    nodes = [ir.Node("", "A", [given], outputs=[inner]), ir.Node("", "B", [inner], outputs=[made])]
    name_batch(ir.Graph([given], [made], nodes=nodes, opset_imports={"": 18}))
    assert dims(inner) == [BATCH_AXIS, 2]


@pytest.mark.parametrize("expression", ["12*s99", "s99 + 1", "s990", "u0"])
def test_an_expression_of_the_symbol_loses_its_name(expression: str) -> None:
    given, made = value("x", "s99"), value("y", expression, 7)
    name_batch(graph_of(given, made))
    assert dims(made) == [None, 7]


def test_a_static_shape_is_left_as_it_is() -> None:
    given, made = value("x", "s99", 1), value("y", 4, 5)
    name_batch(graph_of(given, made))
    assert dims(made) == [4, 5]


def test_a_value_without_a_shape_is_left_as_it_is() -> None:
    given, made = value("x", "s99"), ir.Value(name="y")
    name_batch(graph_of(given, made))
    assert made.shape is None


def test_a_dimension_without_a_name_is_not_taken_for_the_batch() -> None:
    given, made = value("x", None, 3), value("y", None, 5)
    with pytest.raises(ValueError, match="batch"):
        name_batch(graph_of(given, made))


def test_a_batch_that_tracing_fixed_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"the graph's input has shape \[2,3\]: tracing fixed its batch"):
        name_batch(graph_of(value("x", 2, 3), value("y", 2)))


def test_an_input_without_a_shape_is_an_error() -> None:
    with pytest.raises(ValueError, match="the graph's input has shape None"):
        name_batch(graph_of(ir.Value(name="x"), value("y", 2)))
