"""Take a graph's weights into the graph itself, for tools that read nothing beside it.

Case 1: an initializer that lies in a weights file: its bytes are read, and it keeps its name, type and shape.
Case 2: an initializer with data of its own (a constant of the graph): left as it is.
"""

from __future__ import annotations

import onnx_ir as ir

from vconv.convert.graphs.passes.base import Condition, Pass, PassContext


def embed_weights(graph: ir.Graph) -> bool:
    """Read every external initializer of a graph into it, in place; return whether there was one."""
    modified = False
    for value in graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            held = ir.Tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=tensor.name)
            tensor.release()
            value.const_value = held
            modified = True
    return modified


def _outside(model: ir.Model, context: PassContext) -> str:
    values = model.graph.initializers.values()
    found = [value.name for value in values if isinstance(value.const_value, ir.ExternalTensor)]
    return f"{len(found)} lie in a file, such as {found[0]}" if found else ""


PASS = Pass(
    "embed-weights",
    lambda model, context: embed_weights(model.graph),
    ensures=(Condition("every weight is inside", _outside),),
)
