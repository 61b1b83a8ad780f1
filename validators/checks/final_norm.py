"""Whether the outputs of single blocks have the final norm in a graph, as their names say."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from vconv.convert.architectures.base import FINAL_NORM
from vconv.convert.architectures.layer_outputs import Layer, layers_of
from vconv.convert.graphs.layer_norms import layer_norms
from vconv.convert.graphs.moves import ONNX_MOVES
from vconv.validators.checks.inspected_graph import InspectedGraph


def wrongly_normed(subject: InspectedGraph) -> str:
    """Return which output lacks the final norm that its name says, or has one that it should not have.

    Args:
        subject: the graph.

    Returns:
        The first such output, in words; empty if there is none.
    """
    network, outputs = subject.network, {value.name: value for value in subject.model.graph.outputs}
    names = {
        network.stored_key(tensor)
        for group in network.groups()
        if f"{FINAL_NORM}.weight" in group.parts
        for tensor in group.stored
    }
    scales = {norm.nodes[-1]: norm.scale for norm in layer_norms(subject.model)}
    layers = [layer for layer in layers_of(network) if layer.kind.cut and layer.name in outputs]
    return next((wrong for one in layers if (wrong := _wrong(one, outputs[one.name], names, scales))), "")


def _wrong(layer: Layer, value: ir.Value, names: set[str], scales: Mapping[ir.Node, ir.Value | None]) -> str:
    node = value.producer()
    while node is not None and node.op_type in ONNX_MOVES and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    # A bias is added after the scale of a LayerNorm that is spelled out.
    scaled = next((one for one in _adding(node) if one in scales), node)
    scale = scales.get(scaled) if scaled is not None else None
    if (scale is not None and _stored(scale).name in names) is layer.kind.normed:
        return ""
    found = "no node" if node is None else f"{node.op_type} {node.name or ''}".rstrip()
    with_norm = "the final norm" if layer.kind.normed else "no final norm"
    return f"{layer.name} comes from {found}, expected {with_norm}"


def _adding(node: ir.Node | None) -> list[ir.Node]:
    """List the nodes whose output an ``Add`` takes; none for another node."""
    values = node.inputs if node is not None and node.op_type == "Add" else ()
    makers = [value.producer() for value in values if value is not None]
    return [maker for maker in makers if maker is not None]


def _stored(value: ir.Value) -> ir.Value:
    """Return the tensor of the weights file that a value is; a narrow one is widened first."""
    node = value.producer()
    return node.inputs[0] or value if node is not None and node.op_type == "Cast" else value
