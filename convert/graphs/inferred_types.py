"""The types of the values of a graph, which some exporters leave out."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass


def typed(model: ir.Model) -> ir.Model:
    """Return a graph in which each value has its type, as far as ONNX infers it.

    Args:
        model: the graph; its weights are not read.

    Returns:
        The graph itself if it lacks no type, else a copy.
    """
    values = (value for node in model.graph.all_nodes() for value in node.outputs)
    if all(value.dtype is not None for value in values):
        return model
    copy = ir.from_proto(ir.to_proto(model))
    for name, value in model.graph.initializers.items():  # a copy would not find the file of its weights
        copy.graph.initializers[name].const_value = value.const_value
    return ShapeInferencePass(check_type=False, strict_mode=False, data_prop=False)(copy).model
