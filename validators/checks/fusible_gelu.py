"""Find every GELU that CANN's graph compiler may replace by its tanh form.

The pass GeluONNXFusionPass of CANN, whose source was published, matches ``Div -> Erf -> Add -> Mul``, with
x / sqrt(2) in the beginning and the products with x and 1/2 in the end, in one of two orders. It puts the
operator Gelu in place of the match, and CANN documents this operator as the tanh form. torch also writes
these products in a third order, x * (1/2 * ...). It is found too, because a later CANN may accept it.
"""

from __future__ import annotations

import onnx_ir as ir

_ROOT, _ROOT_TOLERANCE = 1.41421, 1e-5
_TOLERANCE = 1.2e-7
"""The greatest difference from 1 and from 1/2: float32's epsilon."""
_TYPES = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


def fusible_gelus(model: ir.Model) -> list[str]:
    """List the names of the ``Erf`` nodes whose GELU matches the published pattern."""
    return [
        node.name or "Erf" for node in model.graph.all_nodes() if node.op_type == "Erf" and _fusible(node)
    ]


def _fusible(erf: ir.Node) -> bool:
    divided = erf.inputs[0].producer() if erf.inputs[0] is not None else None
    if divided is None or divided.op_type != "Div" or not _is(divided.inputs[1], _ROOT, _ROOT_TOLERANCE):
        return False
    x, added = divided.inputs[0], _next(erf, "Add")
    if _next(divided, "Erf") is not erf or added is None or not _with(added, 1.0):
        return False
    product = _next(added, "Mul")
    other = _other(product, added) if product is not None else None
    if product is None or other is None:
        return False
    last = _next(product, "Mul")
    if other is x:
        return last is not None and _with(last, 0.5)
    if _is(other, 0.5, _TOLERANCE):
        return last is not None and x in last.inputs
    half = other.producer()
    return half is not None and half.op_type == "Mul" and x in half.inputs and _with(half, 0.5)


def _next(node: ir.Node, operator: str) -> ir.Node | None:
    """Return the only node that reads a node's output, if it is of this operator."""
    uses = list(node.outputs[0].uses())
    return uses[0].node if len(uses) == 1 and uses[0].node.op_type == operator else None


def _other(node: ir.Node, first: ir.Node) -> ir.Value | None:
    """Return the input of a product that does not come from a node."""
    others = [value for value in node.inputs if value is not first.outputs[0]]
    return others[0] if len(others) == 1 else None


def _with(node: ir.Node, number: float) -> bool:
    return any(_is(value, number, _TOLERANCE) for value in node.inputs)


def _is(value: ir.Value | None, number: float, tolerance: float) -> bool:
    """Return whether a value is a constant scalar, or of shape [1], near a number."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    # The weights rule refuses a constant of this size outside the graph file; nothing is read here.
    if tensor is None or isinstance(tensor, ir.ExternalTensor) or tensor.dtype not in _TYPES:
        return False
    return (
        tuple(tensor.shape.numpy()) in ((), (1,)) and abs(float(tensor.numpy().item()) - number) <= tolerance
    )
