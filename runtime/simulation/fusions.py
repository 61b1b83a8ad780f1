"""Published fusion passes of CANN, imitated in an ONNX graph.

Only passes that change a result or a precision are imitated; :mod:`vconv.convert.ascend.fusions` lists them.
Which of them a compiler runs, and in which order, is known from its sources and documents alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from vconv.convert.ascend.fusions.base import Match
from vconv.convert.ascend.fusions.table import FUSIONS, GELU
from vconv.convert.graphs.inferred_types import typed

_CUBIC = 0.044715
"""The factor of x^3 in the tanh form of GELU (Hendrycks and Gimpel, 2016, section 2)."""
_LEAST_HALF = 2.0**-24
"""The float16 number of the bits 1."""


class _Writer:
    """Writes the nodes that take the place of a match."""

    def __init__(self, name: str) -> None:
        self.nodes: list[ir.Node] = []
        self._name = name

    def __call__(self, operator: str, *inputs: ir.Value | float, **attributes: int) -> ir.Value:
        """Add a node, whose inputs are values and float32 numbers; return its output."""
        values = [one if isinstance(one, ir.Value) else self._number(one) for one in inputs]
        return self._added(ir.node(operator, values, attributes or None))

    def copy(self, node: ir.Node) -> ir.Value:
        """Add a node with the operator, inputs and attributes of another; return its output."""
        return self._added(ir.Node("", node.op_type, node.inputs, node.attributes.values()))

    def _number(self, number: float) -> ir.Value:
        value = ir.tensor(np.array(number, np.float32))
        return self._added(ir.node("Constant", [], {"value": value}))

    def _added(self, node: ir.Node) -> ir.Value:
        node.name = f"{self._name}_{len(self.nodes)}"
        node.outputs[0].name = node.name
        self.nodes.append(node)
        return node.outputs[0]


def _tanh_gelu(write: _Writer, match: Match) -> ir.Value:
    x = match.operand
    cube = write("Mul", write("Mul", x, x), x)
    inner = write("Mul", write("Add", x, write("Mul", cube, _CUBIC)), math.sqrt(2 / math.pi))
    return write("Mul", write("Mul", x, 0.5), write("Add", write("Tanh", inner), 1.0))


def _narrow_norm(write: _Writer, match: Match) -> ir.Value:
    """Round what the norm gives to the type of the sum that it is fused with."""
    summed, *_, norm = match.nodes
    narrow = summed.outputs[0].dtype
    assert narrow is not None
    return write("Cast", write("Cast", write.copy(norm), to=int(narrow)), to=int(ir.DataType.FLOAT))


def _shrunk_norm(write: _Writer, match: Match) -> ir.Value:
    """Multiply by the float16 number of the bits 1, which stands for the scale that is missing."""
    scale = write("Cast", _LEAST_HALF, to=int(ir.DataType.FLOAT16))
    return write("Mul", write.copy(match.nodes[-1]), scale)


IMITATIONS: Mapping[str, Callable[[_Writer, Match], ir.Value]] = {
    GELU: _tanh_gelu,
    "AddLayerNorm": _narrow_norm,
    "LayerNorm": _shrunk_norm,
}
"""By operator of CANN that a pass puts in: writes nodes that compute what it computes."""


@dataclass(frozen=True)
class Replacement:
    """What one pass replaced.

    Args:
        operator: the operator of CANN that the pass puts in.
        values: the names of what the nodes gave that are gone, in the order of the match. The last one is the
            result, which the operator gives under the same name.
    """

    operator: str
    values: tuple[str, ...]


def fused(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[Replacement]]:
    """Replace what the passes would replace, one pass after another.

    Args:
        model: a graph; it stays unchanged.

    Returns:
        The new graph, with the same references to its weights, and what was replaced.
    """
    made = typed(ir.from_proto(model))
    found: list[Replacement] = []
    for fusion in FUSIONS.values():
        for match in [one for one in fusion.find(made) if one.effect.harmful]:
            write = _Writer(f"vconv_fused_{len(found)}")
            new = IMITATIONS[fusion.becomes](write, match)
            gone = _replace(made.graph, match, write.nodes, new)
            values = [node.outputs[0].name or "" for node in match.nodes if node in gone]
            found.append(Replacement(fusion.becomes, tuple(values)))
    return ir.to_proto(made), found


def _replace(graph: ir.Graph, match: Match, nodes: list[ir.Node], new: ir.Value) -> list[ir.Node]:
    """Put nodes in the place of the last node of a match; the others stay if something still reads them.

    Returns:
        The nodes that are gone.
    """
    *others, last = match.nodes
    new.shape, new.type = match.result.shape, match.result.type
    read = [value for node in match.nodes for value in node.inputs if value is not None]
    ir.convenience.replace_nodes_and_values(graph, last, [last], nodes, [match.result], [new])
    gone = [last]
    for node in reversed(others):
        (value,) = node.outputs
        if not value.uses() and not value.is_graph_output():
            graph.remove(node, safe=True)
            gone.append(node)
    for value in read:  # engines warn of a constant that no node reads
        if value.name and value.name in graph.initializers and not value.uses():
            del graph.initializers[value.name]
    return gone
