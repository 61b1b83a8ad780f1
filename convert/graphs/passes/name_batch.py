"""Rename the dynamic batch dimension to ``batch`` in every shape.

Case 1: a dimension that is the exporter's symbol (such as ``s99``): it is renamed.
Case 2: a dimension that is an expression of that symbol (``12*s99``): it loses its name, which ONNX allows.
Case 3: a static dimension: it stays as it is.
"""

from __future__ import annotations

import onnx_ir as ir

from vconv.convert.graphs.passes.base import Condition, Pass, PassContext
from vconv.types import BATCH_AXIS


def batch_symbol(graph: ir.Graph) -> str:
    """Return the exporter's symbol for the batch.

    Raises:
        ValueError: the input's batch dimension is not symbolic, so the trace baked a batch into the graph.
    """
    shape = graph.inputs[0].shape
    if shape is None or not isinstance(shape[0], ir.SymbolicDim) or shape[0].value is None:
        raise ValueError(f"the graph's input has shape {shape}: tracing fixed its batch")
    return shape[0].value


def shaped(graph: ir.Graph) -> list[ir.Value]:
    """List every value of a graph whose shape is known, each once."""
    values = (*graph.inputs, *graph.outputs, *(value for node in graph.all_nodes() for value in node.outputs))
    return [value for value in {id(value): value for value in values}.values() if value.shape is not None]


def name_batch(graph: ir.Graph) -> bool:
    """Rename the first dimension of the graph's input, and all dimensions with the same symbol, in place.

    Returns:
        Whether any dimension changed.

    Raises:
        ValueError: the input's batch dimension is not symbolic, so the trace baked a batch into the graph.
    """
    symbol = batch_symbol(graph)
    modified = False
    for value in shaped(graph):
        before, value.shape = value.shape, ir.Shape([_renamed(dim, symbol) for dim in value.shape or ()])
        modified |= before != value.shape
    return modified


def _renamed(dim: int | ir.SymbolicDim, symbol: str) -> int | ir.SymbolicDim:
    if isinstance(dim, int):
        return dim
    return ir.SymbolicDim(BATCH_AXIS if dim.value == symbol else None)


def _fixed(model: ir.Model, context: PassContext) -> str:
    shape = model.graph.inputs[0].shape
    symbolic = shape is not None and isinstance(shape[0], ir.SymbolicDim) and shape[0].value is not None
    return "" if symbolic else f"the graph's input has shape {shape}"


def _misnamed(model: ir.Model, context: PassContext) -> str:
    symbol = batch_symbol(model.graph)
    return "" if symbol == BATCH_AXIS else f"its name is {symbol}"


SYMBOLIC = Condition("the batch is symbolic", _fixed)
PASS = Pass(
    "name-batch",
    lambda model, context: name_batch(model.graph),
    requires=(SYMBOLIC,),
    ensures=(Condition(f"the name of the batch is {BATCH_AXIS}", _misnamed),),
)
