"""Faults of a graph that has outputs of single blocks."""

from __future__ import annotations

import onnx

from vconv.convert.architectures.base import Capability
from vconv.convert.architectures.layer_outputs import Layer, layers_of
from vconv.convert.network import Network
from vconv.validators.faults.base import Fault
from vconv.validators.faults.graphs import in_graph
from vconv.validators.faults.workshop import ArtifactCopy


def _normed(network: Network) -> list[Layer]:
    """List the outputs of single blocks that have the final norm."""
    return [layer for layer in layers_of(network) if layer.kind.normed]


def _without_norm(shop: ArtifactCopy, graph: onnx.GraphProto) -> None:
    """Take the final norm away from the first output of a block that has it."""
    makers = {name: node for node in graph.node for name in node.output}
    node = makers[_normed(shop.network)[0].name]
    while makers[node.input[0]].op_type != "LayerNormalization":
        node = makers[node.input[0]]
    node.input[0] = makers[node.input[0]].input[0]


def _none_is_normed(shop: ArtifactCopy) -> str:
    return "" if _normed(shop.network) else "it has no output of a block with the final norm"


FAULTS = (
    Fault(
        "a feature map without the final norm in a graph",
        "final norm",
        in_graph(_without_norm),
        _none_is_normed,
        needs=(Capability.BLOCKS,),
        of_blocks=True,
    ),
)
