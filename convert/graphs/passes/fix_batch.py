"""Fix the dynamic batch of a graph, and fold what then no longer depends on it.

Tracing a model twice costs twice: a static graph is the dynamic one with a number in the place of a symbol.

Case 1: a dimension that is the batch, or an expression of it (``12*s99``): becomes a number.
Case 2: a ``Shape`` of such a value, and what is computed from it: becomes a constant.
Case 3: an initializer: left as it is; none is read.
"""

from __future__ import annotations

import onnx_ir as ir
import onnxscript.optimizer
import sympy

from vconv.convert.graphs.passes.base import Condition, Pass, PassContext
from vconv.convert.graphs.passes.name_batch import SYMBOLIC, batch_symbol, shaped


def fix_batch(model: ir.Model, batch: int, fold_elements: int) -> bool:
    """Fix the first dimension of the graph's input, and all that follows from it, in place.

    Args:
        model: a graph with a symbolic batch.
        batch: what it becomes.
        fold_elements: greatest constant that is folded.

    Returns:
        True: a symbolic batch is changed in any case.

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


def _undecided(model: ir.Model, context: PassContext) -> str:
    return "the context names none" if context.batch is None else ""


def _another(model: ir.Model, context: PassContext) -> str:
    shape = model.graph.inputs[0].shape
    return "" if shape is not None and shape[0] == context.batch else f"the input is {shape}"


PASS = Pass(
    "fix-batch",
    _run,
    requires=(SYMBOLIC, Condition("a batch is chosen", _undecided)),
    ensures=(Condition("the batch is the one that was chosen", _another),),
)
