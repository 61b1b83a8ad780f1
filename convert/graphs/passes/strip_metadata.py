"""Strip what the exporter notes about the exporting machine: stack traces, source paths, doc strings.

Case 1: properties and doc strings of the model, its graph, and each node go.
Case 2: those of each value and of each constant go.
Case 3: the producer's name becomes vconv's.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from vconv._version import VERSION
from vconv.convert.graphs.passes.base import Condition, Pass, PassContext

NAME = "vconv"
"""What the producer and the graph are called."""


def strip_metadata(model: ir.Model) -> bool:
    """Strip a model of exporter metadata, in place; return whether there was any."""
    named = (model.producer_name, model.producer_version, model.graph.name)
    model.producer_name, model.producer_version = NAME, VERSION
    model.graph.name = NAME
    modified = named != (NAME, VERSION, NAME)
    for holder in _holders(model):
        if _noted(holder):
            modified = True
            # A constant that torch holds has no doc string to be set.
            if holder.doc_string:
                holder.doc_string = None
            holder.metadata_props.clear()
    return modified


def _noted(holder: Any) -> bool:
    return bool(holder.doc_string or holder.metadata_props)


def _holders(model: ir.Model) -> list[Any]:
    """List everything in a model that can carry a note."""
    graph = model.graph
    values = {id(value): value for value in (*graph.inputs, *graph.outputs, *graph.initializers.values())}
    nodes = list(graph.all_nodes())
    for node in nodes:
        values.update((id(value), value) for value in node.outputs)
    constants = [value.const_value for value in values.values() if value.const_value is not None]
    return [model, graph, *nodes, *values.values(), *constants]


def _notes_left(model: ir.Model, context: PassContext) -> str:
    noted = sum(map(_noted, _holders(model)))
    return f"{noted} parts carry notes" if noted else ""


PASS = Pass(
    "strip-metadata",
    lambda model, context: strip_metadata(model),
    ensures=(Condition("nothing carries a note", _notes_left),),
)
