"""Embed a graph's weights in the graph file, for tools that do not read external data.

Case 1: an initializer that refers to a weights file: its data are read; name, type and shape stay.
Case 2: an initializer whose data are in the graph: it stays as it is.
"""

from __future__ import annotations

import onnx_ir as ir

from vconv.convert.graphs.passes.base import Condition, Pass, PassContext


def embed_weights(graph: ir.Graph) -> bool:
    """Embed the data of every external initializer in a graph, in place; return whether there was one."""
    modified = False
    for value in graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            held = ir.Tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=tensor.name)
            tensor.release()
            value.const_value = held
            modified = True
    return modified


def _external(model: ir.Model, context: PassContext) -> str:
    values = model.graph.initializers.values()
    found = [value.name for value in values if isinstance(value.const_value, ir.ExternalTensor)]
    return f"{len(found)} initializers refer to a file, such as {found[0]}" if found else ""


PASS = Pass(
    "embed-weights",
    lambda model, context: embed_weights(model.graph),
    ensures=(Condition("every weight is in the graph", _external),),
)
