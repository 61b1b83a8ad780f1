"""Steps from node to node, as the patterns of fusion passes take them."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

_READ = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
"""The types of constants that the passes read."""


def of_type(model: ir.Model, operator: str) -> Iterator[ir.Node]:
    """Yield the nodes of an operator, those of subgraphs included."""
    return (
        node
        for node in model.graph.all_nodes()
        if node.op_type == operator and node.domain in ("", "ai.onnx")
    )


def producer(value: ir.Value | None, operator: str) -> ir.Node | None:
    """Return the node that gives a value, if it is of this operator."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == operator else None


def read_once(node: ir.Node) -> bool:
    """Return whether one node, and no output of the graph, reads what a node gives."""
    (value,) = node.outputs
    return len(value.uses()) == 1 and not value.is_graph_output()


def only_reader(node: ir.Node, operator: str) -> ir.Node | None:
    """Return the only node that reads what a node gives, if it is of this operator."""
    if not read_once(node):
        return None
    (use,) = node.outputs[0].uses()
    return use.node if use.node.op_type == operator else None


def other_input(node: ir.Node, value: ir.Value | None) -> ir.Value | None:
    """Return the other input of a node that reads two values, one of them this one."""
    others = [given for given in node.inputs if given is not value]
    return others[0] if len(node.inputs) == 2 and len(others) == 1 else None


def number(value: ir.Value | None) -> float | None:
    """Return a constant that a pass reads as a number: a float32 or float16 of shape [] or [1]."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    # A weight outside the graph file is larger than one number.
    if tensor is None or isinstance(tensor, ir.ExternalTensor) or tensor.dtype not in _READ:
        return None
    return float(tensor.numpy().item()) if tuple(tensor.shape.numpy()) in ((), (1,)) else None


def holds(node: ir.Node, wanted: float, tolerance: float) -> bool:
    """Return whether one of a node's inputs is a constant number near another."""
    found = (number(value) for value in node.inputs)
    return any(one is not None and abs(one - wanted) <= tolerance for one in found)
