"""Remove the exporter's metadata about the exporting machine: stack traces, source paths, doc strings.

Case 1: metadata and doc strings of the model, its graph and each node: they are removed.
Case 2: metadata and doc strings of each value and each constant: they are removed.
Case 3: the name and version of the producer, and the name of the graph: they become those of vconv.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from vconv._version import VERSION
from vconv.convert.graphs.passes.base import Condition, Pass, PassContext

NAME = "vconv"
"""The name of the producer and of the graph."""


def strip_metadata(model: ir.Model) -> bool:
    """Remove exporter metadata from a model, in place; return whether there was any."""
    named = (model.producer_name, model.producer_version, model.graph.name)
    model.producer_name, model.producer_version = NAME, VERSION
    model.graph.name = NAME
    modified = named != (NAME, VERSION, NAME)
    for holder in _holders(model):
        if _noted(holder):
            modified = True
            # The doc string of a constant that is a torch tensor is empty and cannot be set.
            if holder.doc_string:
                holder.doc_string = None
            holder.metadata_props.clear()
    return modified


def _noted(holder: Any) -> bool:
    return bool(holder.doc_string or holder.metadata_props)


def _holders(model: ir.Model) -> list[Any]:
    """List all objects in a model that can carry metadata or a doc string."""
    graph = model.graph
    values = {id(value): value for value in (*graph.inputs, *graph.outputs, *graph.initializers.values())}
    nodes = list(graph.all_nodes())
    for node in nodes:
        values.update((id(value), value) for value in node.outputs)
    constants = [value.const_value for value in values.values() if value.const_value is not None]
    return [model, graph, *nodes, *values.values(), *constants]


def _metadata_left(model: ir.Model, context: PassContext) -> str:
    noted = sum(map(_noted, _holders(model)))
    return f"{noted} objects have some" if noted else ""


PASS = Pass(
    "strip-metadata",
    lambda model, context: strip_metadata(model),
    ensures=(Condition("no object has exporter metadata", _metadata_left),),
)
