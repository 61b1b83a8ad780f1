"""An ONNX graph that runs in pieces, so that what every node gives can be had with little memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from vconv.runtime.devices.base import Device
from vconv.runtime.engines import linked_weights
from vconv.runtime.engines.base import PIECE, refusals
from vconv.runtime.engines.onnxruntime import ONNX_RUNTIME_ERRORS, onnxruntime_session
from vconv.types import Array, Arrays

MOST_BYTES = 2**28
"""What the nodes of one piece give at most, together: 256 MiB. A node that gives more is a piece alone."""
MOST_NODES = 64
"""The greatest number of nodes of a piece, for graphs whose shapes are not known."""


def taken_by(node: onnx.NodeProto) -> list[str]:
    """List the values that a node takes, with those that the graphs inside it take from outside."""
    found = list(node.input)
    for inner in (one.g for one in node.attribute if one.HasField("g")):
        made = {value for part in inner.node for value in part.output}
        made |= {tensor.name for tensor in inner.initializer}
        names = [name for part in inner.node for name in taken_by(part)]
        names += [value.name for value in inner.output]
        found += [name for name in dict.fromkeys(names) if name not in made]
    return found


def piece_of(
    model: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    weights: Mapping[str, TensorProto],
    feed: Arrays,
    wanted: Iterable[str],
    name: str,
) -> onnx.ModelProto:
    """Make a graph of some nodes of another graph.

    Args:
        model: the other graph, whose opsets the new graph declares.
        nodes: the nodes, in topological order.
        weights: the other graph's weights by name; those that the nodes read become weights of the new graph.
        feed: the new graph's inputs by name, for their types and shapes.
        wanted: the names of its outputs.
        name: its name.
    """
    read = dict.fromkeys(one for node in nodes for one in taken_by(node))
    graph = helper.make_graph(
        nodes,
        name,
        [
            helper.make_tensor_value_info(
                given, helper.np_dtype_to_tensor_dtype(value.dtype), list(value.shape)
            )
            for given, value in feed.items()
        ],
        [onnx.ValueInfoProto(name=one) for one in wanted],
        [weights[one] for one in read if one in weights],
    )
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def every_value(
    model: onnx.ModelProto, folder: Path, device: Device, given: Arrays, most_bytes: int = MOST_BYTES
) -> Iterator[tuple[onnx.NodeProto, dict[str, Array]]]:
    """Run a graph in ONNX Runtime in pieces, without optimisations, and yield what each node gives.

    Args:
        model: the graph; its weights may be in a file. Where that file is a link, this function changes the
            graph to name the file itself.
        folder: the folder of that file.
        device: the device to run on.
        given: the graph's inputs by name.
        most_bytes: what the nodes of one piece give at most, together.

    Yields:
        The nodes in the graph's order, each with its outputs by name. A caller keeps only what it needs: the
        values that no later node reads are dropped.

    Raises:
        EngineError: ONNX Runtime refuses a piece.
        UnavailableError: ONNX Runtime does not run on the device.
    """
    place = linked_weights.resolved(model, folder)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    sizes = value_sizes(model)
    last = {name: spot for spot, node in enumerate(model.graph.node) for name in taken_by(node)}
    known = dict(given)
    spot = 0
    for nodes in _pieces(model.graph.node, sizes, most_bytes):
        made = [name for node in nodes for name in node.output if name]
        inner = set(made)
        feed = {
            name: known[name]
            for name in dict.fromkeys(name for node in nodes for name in taken_by(node))
            if name and name not in inner and name not in weights
        }
        graph = piece_of(model, nodes, weights, feed, made, PIECE).SerializeToString()
        session = onnxruntime_session(graph, device, PIECE, weights_folder=place, plain=True)
        with refusals("ONNX Runtime", ONNX_RUNTIME_ERRORS, PIECE):
            known |= dict(zip(made, session.run(made, feed), strict=True))
        for node in nodes:
            yield node, {name: known[name] for name in node.output if name}
        spot += len(nodes)
        known = {name: value for name, value in known.items() if last.get(name, -1) >= spot}


def _pieces(
    nodes: Iterable[onnx.NodeProto], sizes: Mapping[str, int], most_bytes: int
) -> Iterator[list[onnx.NodeProto]]:
    """Yield the nodes in their order, in groups that give at most so many bytes."""
    piece: list[onnx.NodeProto] = []
    nbytes = 0
    for node in nodes:
        more = sum(sizes.get(name, 0) for name in node.output)
        if piece and (nbytes + more > most_bytes or len(piece) == MOST_NODES):
            yield piece
            piece, nbytes = [], 0
        piece.append(node)
        nbytes += more
    if piece:
        yield piece


def value_sizes(model: onnx.ModelProto) -> dict[str, int]:
    """Return the bytes of each value of a graph; without a shape, those of the largest input of its node."""
    graph = model.graph if model.graph.value_info else onnx.shape_inference.infer_shapes(model).graph
    found: dict[str, int] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        sides = [one.dim_value for one in kind.shape.dim]
        if kind.elem_type and all(sides):
            found[value.name] = math.prod(sides) * helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize
    for node in model.graph.node:
        largest = max((found.get(name, 0) for name in node.input), default=0)
        for name in node.output:
            found.setdefault(name, largest)
    return found
