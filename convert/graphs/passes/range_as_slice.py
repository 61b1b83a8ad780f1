"""Replace every ``Range`` that counts rows or columns of patches by the beginning of a table.

The table holds every number that the counting can give. NPU compilers avoid an operator that makes a list of
any length from three numbers.

Case 1: a ``Range`` of float32 from a constant in [0, 1) in steps of 1 to a whole number: it becomes a
        ``Slice`` of a table.
Case 2: a ``Range`` of int64 from 0 in steps of 1: the same.
Case 3: any other ``Range``: an error, because the graph would keep it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vconv.convert.graphs.passes.base import Condition, Pass, PassContext
from vconv.convert.graphs.passes.resampling import Builder, counted


def range_as_slice(graph: ir.Graph, greatest: int) -> int:
    """Replace every ``Range`` of cases 1 and 2, in place; return how many there were.

    Args:
        graph: the graph.
        greatest: the greatest number of rows or columns of patches.
    """
    found = [(node, limit) for node in graph if (limit := _whole_limit(node)) is not None]
    for number, (node, limit) in enumerate(found):
        build = Builder(graph, f"range_{number}")
        start, output = _number(node.inputs[0]), node.outputs[0]
        assert start is not None
        kind = np.float32 if output.dtype is ir.DataType.FLOAT else np.int64
        made = counted(build, build.node("Reshape", limit, np.array([1])), start, greatest, kind)
        made.name, made.shape, made.type = output.name, output.shape, output.type
        ir.convenience.replace_nodes_and_values(graph, node, [node], build.nodes, [output], [made])
    return len(found)


def _number(value: ir.Value | None) -> float | None:
    constant = value.const_value if value is not None else None
    return float(constant.numpy()) if constant is not None and constant.size == 1 else None


def _whole_limit(node: ir.Node) -> ir.Value | None:
    """Return the limit of a ``Range`` of cases 1 and 2, before a cast to float32; None for any other node."""
    if node.op_type != "Range" or node.inputs[1] is None:
        return None
    start, step, cast = _number(node.inputs[0]), _number(node.inputs[2]), node.inputs[1].producer()
    if node.outputs[0].dtype is ir.DataType.INT64:
        return node.inputs[1] if (start, step) == (0, 1) else None
    if start is None or not 0 <= start < 1 or step != 1 or cast is None or cast.op_type != "Cast":
        return None
    whole, kind = cast.inputs[0], node.outputs[0].dtype
    known = whole is not None and whole.dtype in (ir.DataType.INT64, None)
    return whole if known and kind is ir.DataType.FLOAT else None


def _left(model: ir.Model, context: PassContext) -> str:
    found = [node.name for node in model.graph if node.op_type == "Range"]
    return f"there are {len(found)}, such as {found[0]}" if found else ""


PASS = Pass(
    "range-as-slice",
    lambda model, context: range_as_slice(model.graph, context.greatest_grid) > 0,
    ensures=(Condition("no Range", _left),),
)
