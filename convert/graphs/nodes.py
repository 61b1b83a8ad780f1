"""Steps from node to node in a graph."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir


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
