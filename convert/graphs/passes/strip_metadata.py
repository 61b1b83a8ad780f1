"""Strip what the exporter notes about the exporting machine: stack traces, source paths, doc strings.

Case 1: properties and doc strings of the model, its graph, and each node go.
Case 2: those of each value and of each constant go.
Case 3: the producer's name becomes vconv's.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from vconv._version import VERSION


def strip_metadata(model: ir.Model) -> None:
    """Strip a model of exporter metadata, in place."""
    graph = model.graph
    model.producer_name, model.producer_version = "vconv", VERSION
    model.doc_string = graph.doc_string = None
    graph.name = "vconv"
    values = {id(value): value for value in (*graph.inputs, *graph.outputs, *graph.initializers.values())}
    for node in graph.all_nodes():
        node.doc_string = None
        node.metadata_props.clear()
        values.update((id(value), value) for value in node.outputs)
    constants = [value.const_value for value in values.values() if value.const_value is not None]
    holders: list[Any] = [*values.values(), *constants]
    for holder in holders:
        if holder.doc_string:
            holder.doc_string = None
        holder.metadata_props.clear()
    model.metadata_props.clear()
    graph.metadata_props.clear()
