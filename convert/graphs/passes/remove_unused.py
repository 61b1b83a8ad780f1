"""Remove nodes and constants that nothing uses, so that an engine loads the graph without a warning.

Case 1: an initializer that no node reads and that is no output, such as the sizes of a ``Resize`` that became
        two matrix products: it is removed.
Case 2: a node whose outputs are not used: it is removed.
Case 3: everything else: it stays as it is.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from vconv.convert.graphs.passes.base import Condition, Pass, PassContext


def unused(model: ir.Model) -> list[str]:
    """List the names of the initializers that no node reads and that are no output."""
    outputs = set(model.graph.outputs)
    return [
        name for name, value in model.graph.initializers.items() if not value.uses() and value not in outputs
    ]


def _run(model: ir.Model, context: PassContext) -> bool:
    return RemoveUnusedNodesPass()(model).modified


def _unused_left(model: ir.Model, context: PassContext) -> str:
    found = unused(model)
    return f"{len(found)} are not used, such as {found[0]}" if found else ""


PASS = Pass("remove-unused", _run, ensures=(Condition("every initializer is used", _unused_left),))
