"""Declare the lowest IR version that an operator set needs, so that older software can read the graph.

Case 1: the graph declares another version: the lowest version is set.
Case 2: the graph declares the lowest version already: it stays as it is.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from vconv.convert.graphs.passes.base import Condition, Pass, PassContext


def least_ir_version(model: ir.Model, opset: int) -> bool:
    """Set a model's IR version, the version of ONNX's format, in place; return whether this changed it.

    Args:
        model: the model.
        opset: version of the operator set that was requested for it.
    """
    least = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)], ignore_unknown=True)
    modified = model.ir_version != least
    model.ir_version = least
    return modified


def _run(model: ir.Model, context: PassContext) -> bool:
    assert context.opset is not None
    return least_ir_version(model, context.opset)


def _without_opset(model: ir.Model, context: PassContext) -> str:
    return "the context has no operator set" if context.opset is None else ""


PASS = Pass("least-ir-version", _run, requires=(Condition("an operator set is chosen", _without_opset),))
