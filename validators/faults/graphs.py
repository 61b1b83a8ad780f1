"""Faults of a graph: each function changes the dynamic graph of an artifact in place."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper, numpy_helper

from vconv.convert.architectures.base import Capability
from vconv.convert.architectures.layer_outputs import layers_of
from vconv.convert.architectures.outputs import gelus_needed, output_names, output_shapes
from vconv.convert.network import Network
from vconv.types import INPUT, Array
from vconv.validators.faults.base import Fault
from vconv.validators.faults.operators import alter
from vconv.validators.faults.workshop import ArtifactCopy

GRAPH = "model.onnx"
_EPSILONS = (1e-5, 1e-6)
"""Two epsilons of LayerNorm: a wrong one is chosen from them."""

Change = Callable[[ArtifactCopy, onnx.GraphProto], None]


def in_graph(change: Change) -> Callable[[ArtifactCopy], None]:
    """Return a fault of an artifact that makes a change in its dynamic graph."""

    def inject(shop: ArtifactCopy) -> None:
        model = shop.graph(GRAPH)
        change(shop, model.graph)
        shop.save_graph(GRAPH, model)

    return inject


def _constant(graph: onnx.GraphProto, name: str, value: Array) -> str:
    graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def _index(graph: onnx.GraphProto, name: str, *values: int) -> str:
    return _constant(graph, name, np.array(values, np.int64))


def _before_all(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    """Insert an operator on the images at the beginning, and let all other operators read its output."""
    for other in graph.node:
        for place, name in enumerate(other.input):
            if name == INPUT:
                other.input[place] = node.output[0]
    graph.node.insert(0, node)


def _instead_of(graph: onnx.GraphProto, output: str, node: onnx.NodeProto) -> None:
    """Let another operator compute an output of the graph."""
    before = f"{output}_before"
    for other in graph.node:
        for names in (other.input, other.output):
            for place, name in enumerate(names):
                if name == output:
                    names[place] = before
    for place, name in enumerate(node.input):
        if name == output:
            node.input[place] = before
    graph.node.append(node)


def _tanh_gelu(shop: ArtifactCopy, graph: onnx.GraphProto) -> None:
    """Replace erf(x / sqrt(2)) by tanh(sqrt(2 / pi) (x + 0.044715 x^3)) (Hendrycks and Gimpel, 2016)."""
    root = _constant(graph, "tanh_root", np.array(math.sqrt(2), np.float32))
    cubic = _constant(graph, "tanh_cubic", np.array(0.044715, np.float32))
    scale = _constant(graph, "tanh_scale", np.array(math.sqrt(2 / math.pi), np.float32))
    nodes = []
    for node in graph.node:
        if node.op_type != "Erf":
            nodes.append(node)
            continue
        (y,), (out,) = node.input, node.output
        nodes += [
            helper.make_node("Mul", [y, root], [f"{out}_x"]),
            helper.make_node("Mul", [f"{out}_x", f"{out}_x"], [f"{out}_square"]),
            helper.make_node("Mul", [f"{out}_square", f"{out}_x"], [f"{out}_cube"]),
            helper.make_node("Mul", [f"{out}_cube", cubic], [f"{out}_small"]),
            helper.make_node("Add", [f"{out}_x", f"{out}_small"], [f"{out}_sum"]),
            helper.make_node("Mul", [f"{out}_sum", scale], [f"{out}_scaled"]),
            helper.make_node("Tanh", [f"{out}_scaled"], [out]),
        ]
    del graph.node[:]
    graph.node.extend(nodes)


def _fusible_gelu(shop: ArtifactCopy, graph: onnx.GraphProto) -> None:
    """Write every x * (1 / sqrt(2)) before an Erf as x / sqrt(2): the values are the same."""
    root = _constant(graph, "fusible_root", np.array(math.sqrt(2), np.float32))
    scaled = {node.input[0] for node in graph.node if node.op_type == "Erf"}
    constants = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Mul" and scaled.intersection(node.output):
            (x,) = (name for name in node.input if name not in constants)
            node.op_type = "Div"
            del node.input[:]
            node.input.extend([x, root])
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def _wrong_epsilon(shop: ArtifactCopy, graph: onnx.GraphProto) -> None:
    right = shop.network.numbers.epsilon
    wrong = next(epsilon for epsilon in _EPSILONS if not math.isclose(epsilon, right))
    for node in graph.node:
        if node.op_type == "LayerNormalization":
            kept = [attribute for attribute in node.attribute if attribute.name != "epsilon"]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute("epsilon", wrong)])


def _turned(shop: ArtifactCopy, graph: onnx.GraphProto) -> None:
    _before_all(graph, helper.make_node("Transpose", [INPUT], ["turned"], "turn", perm=[0, 1, 3, 2]))


def _blue_first(shop: ArtifactCopy, graph: onnx.GraphProto) -> None:
    order = _index(graph, "blue_first", 2, 1, 0)
    _before_all(graph, helper.make_node("Gather", [INPUT, order], ["reversed"], "reverse", axis=1))


def _final_scale(network: Network) -> str:
    """Return the key of the scale of the norm after the last block; empty if there is none."""
    found = [
        tensor for tensor in network.tensors().values() if tensor.role == "norm" and tensor.block is None
    ]
    return network.stored_key(found[0]) if found else ""


def _without_final_norm(shop: ArtifactCopy, graph: onnx.GraphProto) -> None:
    """Let the norm after the last block pass on what it is given."""
    scale = _final_scale(shop.network)
    node = next(node for node in graph.node if node.op_type == "LayerNormalization" and scale in node.input)
    names = list(node.input[1:])
    node.op_type = "Identity"
    del node.input[1:], node.attribute[:]
    for tensor in [tensor for tensor in graph.initializer if tensor.name in names]:
        graph.initializer.remove(tensor)


def _another_pooling(shop: ArtifactCopy, graph: onnx.GraphProto) -> None:
    """Pool by the mean of the patches instead of the class token, or the other way round."""
    if shop.network.numbers.pooling == "avg":
        inputs = ["last_hidden_state", _constant(graph, "first", np.array(0, np.int64))]
        node = helper.make_node("Gather", inputs, ["pooled"], "pool", axis=1)
    else:
        inputs = ["patches", _index(graph, "tokens_axis", 1)]
        node = helper.make_node("ReduceMean", inputs, ["pooled"], "pool", keepdims=0)
    _instead_of(graph, "pooled", node)


def _one_token_early(shop: ArtifactCopy, graph: onnx.GraphProto) -> None:
    """Let the patch tokens begin one token too early, with the last register or the class token."""
    first = shop.network.registers
    inputs = ["last_hidden_state", _index(graph, "early", first), _index(graph, "late", -1)]
    inputs.append(_index(graph, "slice_axis", 1))
    _instead_of(graph, "patches", helper.make_node("Slice", inputs, ["patches"], "slice_early"))


def _swappable(shop: ArtifactCopy) -> tuple[str, str] | None:
    """Return two outputs that differ, the first that there are; None without two."""
    network = shop.network
    shapes = output_shapes(network, 1, shop.made.size)
    layers = {one.name: (one.block, one.kind.normed) for one in layers_of(network)}

    def differ(one: str, other: str) -> bool:
        of_layers = one in layers and other in layers and layers[one] != layers[other]
        return of_layers or shapes[one] != shapes[other]

    pairs = [("pooled", "cls")] if network.numbers.pooling != "cls" else []
    pairs += [("patches", "last_hidden_state")]
    pairs += [pair for pair in itertools.combinations(shapes, 2) if differ(*pair)]
    return next((pair for pair in pairs if set(pair) <= set(shapes)), None)


def _swapped_names(shop: ArtifactCopy, graph: onnx.GraphProto) -> None:
    """Swap the names of two outputs that differ, together with their declared shapes."""
    names = _swappable(shop)
    assert names
    swap = {names[0]: names[1], names[1]: names[0]}
    for node in graph.node:
        for values in (node.input, node.output):
            for place, name in enumerate(values):
                values[place] = swap.get(name, name)
    order = [value.name for value in graph.output]
    found = {}
    for value in graph.output:
        value.name = swap.get(value.name, value.name)
        found[value.name] = onnx.ValueInfoProto.FromString(value.SerializeToString())
    del graph.output[:]
    graph.output.extend(found[name] for name in order)


def _key(network: Network, *roles: str) -> str:
    """Return the key of the tensor with one of the given roles that is in the middle of the network."""
    found = [tensor for tensor in network.tensors().values() if tensor.role in roles]
    return network.stored_key(found[len(found) // 2]) if found else ""


def _value_bias(network: Network) -> str:
    """Return the key of the value bias of the middle block; empty if there is none."""
    keys = [
        network.stored_key(tensor)
        for tensor in network.tensors().values()
        if tensor.block == network.blocks // 2
        and any(tensor.key.endswith(bias) for bias in network.layout.biases)
        and ("v" in tensor.key.split(".")[-2].split("_")[0] or "qkv" in tensor.key)
    ]
    return keys[0] if keys else ""


def _drop_bias(shop: ArtifactCopy, graph: onnx.GraphProto, key: str) -> None:
    """Remove the operator that adds a bias; of a fused bias, remove the third that belongs to the values."""
    if "qkv" in key:
        _replaced(shop, graph, key, _without_last_third)
        return
    node = next(node for node in graph.node if node.op_type == "Add" and key in node.input)
    (kept,) = (name for name in node.input if name != key)
    for other in graph.node:
        for place, name in enumerate(other.input):
            if name == node.output[0]:
                other.input[place] = kept
    graph.node.remove(node)
    graph.initializer.remove(next(tensor for tensor in graph.initializer if tensor.name == key))


def _without_last_third(bias: Array) -> Array:
    return np.concatenate([bias[: 2 * len(bias) // 3], np.zeros_like(bias[2 * len(bias) // 3 :])])


def _replaced(shop: ArtifactCopy, graph: onnx.GraphProto, key: str, change: Callable[[Array], Array]) -> None:
    """Replace a weight by other data inside the graph file, as if it had been baked in."""
    tensor = next(tensor for tensor in graph.initializer if tensor.name == key)
    value = np.ascontiguousarray(change(shop.value_of(tensor)))
    graph.initializer.remove(tensor)
    _constant(graph, key, value)


def _drop_value_bias(shop: ArtifactCopy, graph: onnx.GraphProto) -> None:
    _drop_bias(shop, graph, _value_bias(shop.network))


def _drop_projection_bias(shop: ArtifactCopy, graph: onnx.GraphProto) -> None:
    _drop_bias(shop, graph, _key(shop.network, "proj_bias"))


def _stale_positions(shop: ArtifactCopy, graph: onnx.GraphProto) -> None:
    """Bake in stale positions: each token has its neighbour's position."""
    _replaced(shop, graph, _key(shop.network, "position"), lambda value: np.roll(value, 1, axis=1))


def _one_operator(shop: ArtifactCopy, graph: onnx.GraphProto) -> None:
    """Scale the output of the softmax of the middle block."""
    found = [node.name for node in graph.node if node.op_type == "Softmax"]
    model = onnx.ModelProto()
    model.graph.CopyFrom(graph)
    alter(model, found[len(found) // 2], shop.value_of)
    graph.CopyFrom(model.graph)


def _lacking(shop: ArtifactCopy, *names: str) -> str:
    lacking = next((name for name in names if name not in output_names(shop.network)), "")
    return f"it has no output {lacking}" if lacking else ""


def _no_pooled(shop: ArtifactCopy) -> str:
    averaged = not shop.network.observed and shop.network.numbers.pooling == "avg"
    return _lacking(shop, "pooled", "last_hidden_state" if averaged else "patches")


def _no_patches(shop: ArtifactCopy) -> str:
    return _lacking(shop, "patches", "last_hidden_state")


def _one_output(shop: ArtifactCopy) -> str:
    return "" if _swappable(shop) else "it has one output"


def _not_in_graph(shop: ArtifactCopy, key: str) -> str:
    there = {tensor.name for tensor in shop.graph(GRAPH).graph.initializer}
    return "" if key in there else f"no output of its graph needs {key}"


def _no_value_bias(shop: ArtifactCopy) -> str:
    key = _value_bias(shop.network)
    return _not_in_graph(shop, key) if key else "it has no value bias"


def _no_projection_bias(shop: ArtifactCopy) -> str:
    key = _key(shop.network, "proj_bias")
    return _not_in_graph(shop, key) if key else "it has no projection bias"


def _no_final_norm(shop: ArtifactCopy) -> str:
    key = _final_scale(shop.network)
    return (_not_in_graph(shop, key) if key else "it has no final norm") or _lacking(
        shop, "last_hidden_state"
    )


def _no_positions(shop: ArtifactCopy) -> str:
    return "" if _key(shop.network, "position") else "it has no position embedding"


def _not_square(shop: ArtifactCopy) -> str:
    height, width = shop.made.size
    return "" if height == width else "its images are not square, so height and width cannot be swapped"


def _not_exact(shop: ArtifactCopy) -> str:
    return "" if gelus_needed(shop.network) else "no output of it needs an exact GELU"


def _no_softmax(shop: ArtifactCopy) -> str:
    nodes = shop.graph(GRAPH).graph.node
    return "" if any(node.op_type == "Softmax" for node in nodes) else "it has no softmax"


_ROLES, _BLOCKS, _GRID = (Capability.ROLES,), (Capability.BLOCKS,), (Capability.TOKEN_GRID,)

FAULTS = (
    Fault("tanh GELU in a graph", "activation", in_graph(_tanh_gelu), _not_exact),
    Fault("a GELU that CANN fuses", "activation", in_graph(_fusible_gelu), _not_exact),
    Fault("wrong LayerNorm epsilon in a graph", "epsilon", in_graph(_wrong_epsilon), needs=_ROLES),
    Fault("height and width swapped in a graph", "height and width", in_graph(_turned), _not_square),
    Fault("blue channel first in a graph", "channel order", in_graph(_blue_first)),
    Fault("another pooling in a graph", "pooling", in_graph(_another_pooling), _no_pooled, needs=_GRID),
    Fault(
        "patches one token early in a graph",
        "token order",
        in_graph(_one_token_early),
        _no_patches,
        needs=_GRID,
    ),
    Fault(
        "the final norm left out of a graph",
        "final norm",
        in_graph(_without_final_norm),
        _no_final_norm,
        needs=_ROLES,
    ),
    Fault(
        "two output names swapped in a graph",
        "output names",
        in_graph(_swapped_names),
        _one_output,
        needs=_GRID,
    ),
    Fault(
        "a value bias dropped from a graph",
        "bias",
        in_graph(_drop_value_bias),
        _no_value_bias,
        needs=_ROLES,
    ),
    Fault(
        "a projection bias dropped from a graph",
        "bias",
        in_graph(_drop_projection_bias),
        _no_projection_bias,
        needs=_ROLES,
    ),
    Fault(
        "stale positions in a graph",
        "position embedding",
        in_graph(_stale_positions),
        _no_positions,
        needs=_ROLES,
    ),
    Fault(
        "one operator scaled in a graph", "operator", in_graph(_one_operator), _no_softmax, named_by=_BLOCKS
    ),
)
