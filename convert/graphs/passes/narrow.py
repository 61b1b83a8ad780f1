"""Compute a graph in float16 or bfloat16, with explicit casts, but for the nodes that stay in float32.

Those are the nodes of the plan, and those of :func:`vconv.convert.reduced.islands.always_wide`.

Case 1: a node that computes: its float inputs and outputs get the narrow type.
Case 2: a node that stays in float32: its narrow inputs are cast to float32.
Case 3: a node that only moves data, such as ``Reshape``: it takes the type of what it moves.
Case 4: a weight: it gets the type that the weights file has for it, and is cast where a node needs the other.
Case 5: a small constant inside the graph: a node that computes in the narrow type gets a copy in that type.
Case 6: an input or output of the graph: it stays in float32, with a cast.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from vconv.convert.graphs.passes.base import Condition, Pass, PassContext
from vconv.convert.graphs.passes.point_at_weights import point_at
from vconv.convert.reduced.islands import COUNTING, MOVES, NARROW_TYPES, WIDE, always_wide

_ENDS = {ir.DataType.FLOAT16: "float16", ir.DataType.BFLOAT16: "bfloat16", WIDE: "float32"}
"""The end of the name of a value that was cast, by its type."""
_FLOATS = frozenset(_ENDS)


class _Caster:
    """Casts values of a graph to a type, each once.

    Args:
        graph: the graph.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._made: dict[tuple[str, ir.DataType], ir.Value] = {}
        self._names = {value.name for node in graph for value in node.outputs}
        self._names |= {value.name for value in (*graph.inputs, *graph.initializers.values())}

    def to(self, value: ir.Value, dtype: ir.DataType, before: ir.Node) -> ir.Value:
        """Return a value in a type, cast before a node if it has another."""
        if value.dtype == dtype or value.dtype not in _FLOATS:
            return value
        key = value.name or "", dtype
        if key not in self._made:
            self._made[key] = self._constant(value, dtype) or self._cast(value, dtype, before)
        return self._made[key]

    def _constant(self, value: ir.Value, dtype: ir.DataType) -> ir.Value | None:
        tensor = value.const_value
        if tensor is None or isinstance(tensor, ir.ExternalTensor) or not value.is_initializer():
            return None
        narrow = ir.tensor(tensor.numpy().astype(dtype.numpy()), dtype, name=self._name(value, dtype))
        made = ir.Value(name=narrow.name, type=ir.TensorType(dtype), shape=value.shape, const_value=narrow)
        self._graph.register_initializer(made)
        return made

    def _cast(self, value: ir.Value, dtype: ir.DataType, before: ir.Node) -> ir.Value:
        node = ir.node("Cast", [value], {"to": dtype})
        node.name = node.outputs[0].name = self._name(value, dtype)
        node.outputs[0].type, node.outputs[0].shape = ir.TensorType(dtype), value.shape
        maker = value.producer()
        if maker is None:
            self._graph.insert_before(next(iter(self._graph)), node)
        else:
            self._graph.insert_after(maker, node)
        return node.outputs[0]

    def _name(self, value: ir.Value, dtype: ir.DataType) -> str:
        name = f"{value.name}_{_ENDS[dtype]}"
        while name in self._names:
            name += "_"
        self._names.add(name)
        return name


def narrow(model: ir.Model, dtype: ir.DataType, kept: Iterable[str]) -> bool:
    """Compute a graph in a narrow type, in place.

    Args:
        model: the graph, in float32 but for its weights, whose types are those of their file.
        dtype: the narrow type.
        kept: the names of the nodes that stay in float32.

    Returns:
        Whether any node computes in the narrow type.
    """
    graph, stay, modified = model.graph, frozenset(kept), False
    casts = _Caster(graph)
    for node in list(graph):
        if node.op_type in COUNTING or node.op_type == "Cast":
            continue
        if node.op_type in MOVES:
            moved = {value.dtype for value in node.inputs if value is not None and value.dtype in _FLOATS}
            wanted = dtype if moved == {dtype} else WIDE
        else:
            wanted = WIDE if node.name in stay else dtype
        for place, value in enumerate(node.inputs):
            if value is not None:
                node.replace_input_with(place, casts.to(value, wanted, node))
        modified |= wanted == dtype
        _retype(node, wanted)
    for output in list(graph.outputs):
        _widen_output(graph, output)
    return modified


def _retype(node: ir.Node, dtype: ir.DataType) -> None:
    """Give the float outputs of a node a type."""
    for value in node.outputs:
        if value.dtype in _FLOATS:
            value.type = ir.TensorType(dtype)


def _widen_output(graph: ir.Graph, output: ir.Value) -> None:
    """Cast an output of the graph to float32; the cast gives it under its name."""
    maker = output.producer()
    if output.dtype == WIDE or output.dtype not in _FLOATS or maker is None:
        return
    name = output.name
    output.name = f"{name}_{_ENDS[output.dtype]}"
    node = ir.node("Cast", [output], {"to": WIDE})
    node.name = node.outputs[0].name = name
    node.outputs[0].type, node.outputs[0].shape = ir.TensorType(WIDE), output.shape
    graph.insert_after(maker, node)
    graph.outputs[graph.outputs.index(output)] = node.outputs[0]


def _run(model: ir.Model, context: PassContext) -> bool:
    assert context.plan is not None
    dtype = NARROW_TYPES[context.plan.precision]
    modified = False
    for name, value in model.graph.initializers.items():
        if isinstance(value.const_value, ir.ExternalTensor):
            modified |= point_at(value, context.entries[name])
    return narrow(model, dtype, context.plan.kept | always_wide(model, dtype)) or modified


def _untyped(model: ir.Model, context: PassContext) -> str:
    found = [value.name for node in model.graph for value in node.outputs if value.dtype is None]
    return f"{found[0]} has no type" if found else ""


def _mixed(model: ir.Model, context: PassContext) -> str:
    """Find a node that takes float values of two types."""
    for node in model.graph:
        kinds = {value.dtype for value in node.inputs if value is not None and value.dtype in _FLOATS}
        if len(kinds) > 1:
            return f"{node.name} takes {sorted(map(str, kinds))}"
    return ""


PASS = Pass(
    "narrow",
    _run,
    requires=(Condition("every value has a type", _untyped),),
    ensures=(Condition("every node takes float values of one type", _mixed),),
)
