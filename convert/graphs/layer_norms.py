"""The LayerNorms of a graph, as one operator or spelled out.

Opsets below 17 have no ``LayerNormalization``. A graph for them computes
``(x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon) * scale + bias`` operator by operator.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

NORM = "LayerNormalization"
DEFAULT_EPSILON = 1e-5
"""ONNX's default epsilon of LayerNormalization."""


@dataclass(frozen=True)
class LayerNorm:
    """One LayerNorm.

    Args:
        given: the value that it normalises.
        scale: the value that it multiplies by.
        epsilon: what it adds to the variance.
        nodes: the nodes that compute it, up to the one that multiplies by the scale.
    """

    given: ir.Value | None
    scale: ir.Value | None
    epsilon: float
    nodes: tuple[ir.Node, ...]


def layer_norms(model: ir.Model) -> list[LayerNorm]:
    """List the LayerNorms of a graph, in order."""
    return list(_found(model))


def _found(model: ir.Model) -> Iterator[LayerNorm]:
    for node in model.graph.all_nodes():
        if node.op_type == NORM:
            epsilon = node.attributes.get_float("epsilon", DEFAULT_EPSILON)
            yield LayerNorm(node.inputs[0], node.inputs[1], epsilon, (node,))
        elif node.op_type == "Mul":
            for place in (0, 1):
                norm = _spelled_out(node, place)
                if norm is not None:
                    yield norm


def _spelled_out(scaled: ir.Node, place: int) -> LayerNorm | None:
    """Return the LayerNorm that ends in a product, whose input at ``place`` is what is scaled."""
    divided = _maker(scaled.inputs[place], "Div")
    difference, root = (_maker(_input(divided, number), kind) for number, kind in ((0, "Sub"), (1, "Sqrt")))
    added = _maker(_input(root, 0), "Add")
    variance = _maker(_input(added, 0), "ReduceMean")
    square = _maker(_input(variance, 0), "Mul")
    mean = _maker(_input(difference, 1), "ReduceMean")
    small = _input(added, 1)
    epsilon = ir.convenience.get_const_tensor(small) if small is not None else None
    if not (mean and difference and square and variance and added and root and divided) or epsilon is None:
        return None
    given = difference.inputs[0]
    if {*square.inputs} != {difference.outputs[0]} or mean.inputs[0] is not given or epsilon.size != 1:
        return None
    nodes = (mean, difference, square, variance, added, root, divided, scaled)
    return LayerNorm(given, scaled.inputs[1 - place], float(epsilon.numpy().item()), nodes)


def _maker(value: ir.Value | None, operator: str) -> ir.Node | None:
    """Return the node that makes a value, if it is of this operator."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == operator else None


def _input(node: ir.Node | None, place: int) -> ir.Value | None:
    return node.inputs[place] if node is not None and place < len(node.inputs) else None
