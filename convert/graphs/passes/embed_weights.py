"""Take a graph's weights into the graph itself, for tools that read nothing beside it.

Case 1: an initializer that lies in a weights file: its bytes are read, and it keeps its name, type and shape.
Case 2: an initializer with data of its own (a constant of the graph): left as it is.
"""

from __future__ import annotations

import onnx_ir as ir


def embed_weights(graph: ir.Graph) -> None:
    """Read every external initializer of a graph into it, in place."""
    for value in graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            held = ir.Tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=tensor.name)
            tensor.release()
            value.const_value = held
