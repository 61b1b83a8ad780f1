"""Faults that only a graph for images of any size can have."""

from __future__ import annotations

import onnx
from onnx import helper

from vconv.convert.architectures.base import Capability
from vconv.validators.faults.base import Fault
from vconv.validators.faults.exports import export_again
from vconv.validators.faults.graphs import GRAPH, in_graph
from vconv.validators.faults.workshop import ArtifactCopy

_RESAMPLED = "resample_0_"
"""The beginning of the names of the nodes that resample a position embedding."""


def _with_the_size_fixed(shop: ArtifactCopy) -> None:
    """Trace for images of one size, and declare any: as a library does that makes numbers of symbols."""
    before = shop.graph(GRAPH).graph
    export_again(shop, shop.made.size)
    model = shop.graph(GRAPH)
    for place in ("input", "output"):
        del getattr(model.graph, place)[:]
        getattr(model.graph, place).extend(getattr(before, place))
    shop.save_graph(GRAPH, model)


def _resize_left(shop: ArtifactCopy, graph: onnx.GraphProto) -> None:
    """Put the operator back that the matrices of a resampled position embedding replace."""
    made = [node for node in graph.node if node.name.startswith(_RESAMPLED)]
    product = next(node for node in made if made[-1].input[0] in node.output)
    antialiased = any(node.op_type == "ReduceSum" for node in made)
    resize = helper.make_node(
        "Resize",
        [product.input[1], "", "", made[0].input[0]],
        [made[-1].output[0]],
        "resize",
        mode="cubic",
        cubic_coeff_a=-0.5 if antialiased else -0.75,
        antialias=int(antialiased),
        exclude_outside=int(antialiased),
    )
    place = list(graph.node).index(made[-1])
    kept = [node for node in graph.node[:place] if not node.name.startswith(_RESAMPLED)]
    rest = list(graph.node[place + 1 :])
    del graph.node[:]
    graph.node.extend([*kept, resize, *rest])
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def _not_resampled(shop: ArtifactCopy) -> str:
    nodes = shop.graph(GRAPH).graph.node
    found = any(node.name.startswith(_RESAMPLED) for node in nodes)
    return "" if found else "its position embedding is not resampled in the graph"


FAULTS = (
    Fault(
        "a size fixed by the trace",
        "traced size",
        _with_the_size_fixed,
        needs=(Capability.TOKEN_GRID,),
        any_size=True,
    ),
    Fault("a Resize in a graph", "resampling", in_graph(_resize_left), _not_resampled, any_size=True),
)
