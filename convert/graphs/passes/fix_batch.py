"""Set the dynamic batch of a graph to a number, and fold the values that become constant.

The static graph is made from the dynamic graph, because a second trace of the model would take as long as the
first.

Case 1: a dimension that is the batch, or an expression of the batch (``12*s99``): it becomes a number.
Case 2: a ``Shape`` of such a value, and the values computed from it: they become constants.
Case 3: an initializer: it stays as it is, and its data are not read.
"""

from __future__ import annotations

import onnx_ir as ir
import onnxscript.optimizer
import sympy

from vconv.convert.graphs.passes.base import Condition, Pass, PassContext
from vconv.convert.graphs.passes.name_batch import SYMBOLIC, batch_symbol, shaped


def fix_batch(model: ir.Model, batch: int, fold_elements: int) -> bool:
    """Set the first dimension of the graph's input, and all dimensions that depend on it, in place.

    Args:
        model: a graph with a symbolic batch.
        batch: the batch size.
        fold_elements: number of elements of the greatest constant that is folded.

    Returns:
        True, because a symbolic batch always changes.

    Raises:
        ValueError: the input's batch dimension is not symbolic.
    """
    graph = model.graph
    symbol = batch_symbol(graph)
    for value in shaped(graph):
        value.shape = ir.Shape([_fixed(dim, symbol, batch) for dim in value.shape or ()])
    weights = {
        name: value.const_value
        for name, value in graph.initializers.items()
        if isinstance(value.const_value, ir.ExternalTensor)
    }
    for name in weights:
        graph.initializers[name].const_value = None
    onnxscript.optimizer.fold_constants(
        model, input_size_limit=fold_elements, output_size_limit=fold_elements
    )
    onnxscript.optimizer.remove_unused_nodes(model)
    for name, tensor in weights.items():
        if name in graph.initializers:
            graph.initializers[name].const_value = tensor
    return True


def _fixed(dim: int | ir.SymbolicDim, symbol: str, batch: int) -> int | ir.SymbolicDim:
    if isinstance(dim, int) or dim.value is None:
        return dim
    if dim.value == symbol:
        return batch
    found = sympy.sympify(dim.value, locals={symbol: sympy.Integer(batch)})
    return int(found) if found.is_Integer else dim


def _run(model: ir.Model, context: PassContext) -> bool:
    assert context.batch is not None
    return fix_batch(model, context.batch, context.fold_elements)


def _no_batch(model: ir.Model, context: PassContext) -> str:
    return "the context has no batch" if context.batch is None else ""


def _wrong_batch(model: ir.Model, context: PassContext) -> str:
    shape = model.graph.inputs[0].shape
    return "" if shape is not None and shape[0] == context.batch else f"the input has shape {shape}"


PASS = Pass(
    "fix-batch",
    _run,
    requires=(SYMBOLIC, Condition("a batch is chosen", _no_batch)),
    ensures=(Condition("the batch is the chosen one", _wrong_batch),),
)
