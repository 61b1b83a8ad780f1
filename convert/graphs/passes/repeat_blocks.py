"""Repeat one block of a graph, each time with other weights, for the blocks with which it was not traced.

A block is what depends on its weights, and not on those of the block after it.

Case 1: a block that takes one value of the block before it, and gives one: a copy of its nodes follows it for
        each block that was left out. Each takes what the one before it gives; the last gives what the block
        after it takes.
Case 2: a value that does not depend on the weights of any block, such as the tables of RoPE, and a constant:
        all copies read the same.
Case 3: a weight: each copy reads that of the block for which it stands.
Case 4: any other form: an error, because the graph cannot be completed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import onnx_ir as ir

from vconv.convert.files.safetensors_file import TensorEntry
from vconv.convert.graphs.passes.base import Pass, PassContext, Repeats
from vconv.convert.graphs.passes.point_at_weights import point_at


def repeat_blocks(graph: ir.Graph, entries: Mapping[str, TensorEntry], repeats: Repeats) -> None:
    """Repeat a block, in place.

    Args:
        graph: the graph; its weights have their names in the weights file.
        entries: the weights file's header.
        repeats: the blocks that were left out, by the names of their weights there.

    Raises:
        ValueError: the block takes more than one value of the blocks before it, or gives more than one.
    """
    own = [name for name in repeats.copies[0] if name in graph.initializers]
    after, before = _depending(graph, repeats.following), _depending(graph, repeats.preceding)
    depending = _depending(graph, own) - after
    nodes = [node for node in graph if node in depending]
    given, taken = _ends(nodes, before)
    readers = [(use.node, use.idx) for use in taken.uses() if use.node not in depending]
    place, value = nodes[-1], taken
    for number, names in enumerate(repeats.copies, 2):
        known = {given: value}
        for name in own:
            known[graph.initializers[name]] = _weight(graph, graph.initializers[name], entries[names[name]])
        made = [_copied(node, known, number) for node in nodes]
        graph.insert_after(place, made)
        place, value = made[-1], known[taken]
    for node, index in readers:
        node.replace_input_with(index, value)


def _depending(graph: ir.Graph, names: Iterable[str]) -> set[ir.Node]:
    """Return the nodes that depend on weights."""
    waiting = [graph.initializers[name] for name in names if name in graph.initializers]
    found: set[ir.Node] = set()
    while waiting:
        for use in waiting.pop().uses():
            if use.node not in found:
                found.add(use.node)
                waiting += use.node.outputs
    return found


def _ends(nodes: Sequence[ir.Node], before: Collection[ir.Node]) -> tuple[ir.Value, ir.Value]:
    """Return the value that a block takes of the blocks before it, and the one that it gives."""
    inside = set(nodes)
    made = [value for node in nodes for value in node.outputs]
    given = {
        value: None
        for node in nodes
        for value in node.inputs
        if value is not None and value.producer() not in inside and value.producer() in before
    }
    taken = [
        value
        for value in made
        if value.is_graph_output() or any(use.node not in inside for use in value.uses())
    ]
    if len(given) != 1 or len(taken) != 1 or taken[0].is_graph_output():
        raise ValueError(f"a block takes {len(given)} values of those before it, and gives {len(taken)}")
    return next(iter(given)), taken[0]


def _weight(graph: ir.Graph, like: ir.Value, entry: TensorEntry) -> ir.Value:
    """Add the weight of another block."""
    made = ir.Value(name=entry.name, shape=like.shape, type=like.type)
    point_at(made, entry)
    graph.register_initializer(made)
    return made


def _copied(node: ir.Node, known: dict[ir.Value, ir.Value], number: int) -> ir.Node:
    """Copy a node; its inputs become those that are known for it, and its outputs are known from then on."""
    inputs = [value if value is None else known.get(value, value) for value in node.inputs]
    made = ir.Node(
        node.domain,
        node.op_type,
        inputs,
        [*node.attributes.values()],
        overload=node.overload,
        num_outputs=len(node.outputs),
        version=node.version,
        name=f"{node.name}_{number}",
    )
    for old, new in zip(node.outputs, made.outputs, strict=True):
        new.name, new.shape, new.type = f"{old.name}_{number}", old.shape, old.type
        known[old] = new
    return made


def _run(model: ir.Model, context: PassContext) -> bool:
    if context.repeats is None:
        return False
    repeat_blocks(model.graph, context.entries, context.repeats)
    return True


PASS = Pass("repeat-blocks", _run)
