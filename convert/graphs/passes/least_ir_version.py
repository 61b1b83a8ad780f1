"""Declare the least version of ONNX's format that an operator set needs, so that old readers take the graph.

Case 1: the graph declares another version: that one is set.
Case 2: it declares this one already: left as it is.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from vconv.convert.graphs.passes.base import Condition, Pass, PassContext


def least_ir_version(model: ir.Model, opset: int) -> bool:
    """Set a model's version of ONNX's format, in place; return whether it was another.

    Args:
        model: the model.
        opset: version of the operator set that it is made for.
    """
    least = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)], ignore_unknown=True)
    modified = model.ir_version != least
    model.ir_version = least
    return modified


def _run(model: ir.Model, context: PassContext) -> bool:
    assert context.opset is not None
    return least_ir_version(model, context.opset)


def _without_opset(model: ir.Model, context: PassContext) -> str:
    return "the context names none" if context.opset is None else ""


PASS = Pass("least-ir-version", _run, requires=(Condition("an operator set is chosen", _without_opset),))
