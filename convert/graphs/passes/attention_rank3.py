"""Write attention over tensors of rank 3: one matrix for each image and head, in place of a grid of matrices.

On an Ascend 310P, batched products of rank 3 are reported to run faster than those of rank 4. The values are
the same: only shapes change.

Case 1: MatMul, any casts and any products and sums with single numbers, Softmax over the last axis, any
        casts, MatMul, all of rank 4 and with known lengths but for the batch, which is the same in both
        operands of each product: it becomes the same of rank 3, with a ``Reshape`` of each input and of the
        result.
Case 2: the weights of case 1 have other readers, such as an output: these get them from one more ``Reshape``.
Case 3: any other attention, such as one with a bias on the scores, or none at all: the export is refused. An
        attention is a Softmax that depends on a product, and on which a product depends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vconv.convert.graphs.nodes import of_type, read_once
from vconv.convert.graphs.passes.base import Pass, PassContext
from vconv.convert.graphs.passes.resampling import Builder
from vconv.errors import InputError

RANK, WANTED = 4, 3
_SCALING = ("Mul", "Div", "Add", "Sub")
_PRODUCTS = ("MatMul", "Gemm", "Einsum")


@dataclass(frozen=True)
class Attention:
    """An attention of case 1 or 2.

    Args:
        scores: the product of queries and keys.
        scaling: what is computed with single numbers between it and the softmax, and casts.
        softmax: the softmax.
        casts: the casts of the weights.
        mixed: the product of the weights and the values.
    """

    scores: ir.Node
    scaling: tuple[ir.Node, ...]
    softmax: ir.Node
    casts: tuple[ir.Node, ...]
    mixed: ir.Node

    @property
    def nodes(self) -> tuple[ir.Node, ...]:
        """Its nodes, in order."""
        return self.scores, *self.scaling, self.softmax, *self.casts, self.mixed


def attentions(model: ir.Model) -> list[Attention]:
    """List the attentions of cases 1 and 2."""
    found = (_attention(node) for node in of_type(model, "Softmax"))
    return [one for one in found if one is not None]


def softmaxes(model: ir.Model) -> list[ir.Node]:
    """List the softmaxes of attentions: those that depend on a product, and on which a product depends."""
    products = [node for node in model.graph.all_nodes() if node.op_type in _PRODUCTS]
    after = _reached(products, lambda node: [use.node for one in node.outputs for use in one.uses()])
    before = _reached(
        products, lambda node: [made for one in node.inputs if one and (made := one.producer())]
    )
    return [node for node in of_type(model, "Softmax") if node in after and node in before]


def _reached(start: Iterable[ir.Node], following: Callable[[ir.Node], list[ir.Node]]) -> set[ir.Node]:
    """Return the nodes that are reached from others by one step or more."""
    found: set[ir.Node] = set()
    waiting = [one for node in start for one in following(node)]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += following(node)
    return found


def left(model: ir.Model) -> list[ir.Node]:
    """List the softmaxes of attentions whose rank is not 3, or not known."""
    return [node for node in softmaxes(model) if _rank(node.outputs[0]) != WANTED]


def _rank(value: ir.Value) -> int | None:
    return len(value.shape) if value.shape is not None else None


def attention_rank3(model: ir.Model) -> int:
    """Rewrite every attention of cases 1 and 2, in place; return how many there were."""
    found = attentions(model)
    for number, one in enumerate(found):
        assert isinstance(one.softmax.graph, ir.Graph)
        _rewrite(one.softmax.graph, one, Builder(one.softmax.graph, f"attention_{number}"))
    return len(found)


def _rewrite(graph: ir.Graph, one: Attention, build: Builder) -> None:
    value = build.node("MatMul", *(_flat(build, given) for given in one.scores.inputs))
    replaced: dict[ir.Value, ir.Value] = {}
    for node in (*one.scaling, one.softmax, *one.casts):
        value = _same(build, node, value)
        before = node.outputs[0]
        if node is one.softmax or node in one.casts:
            value.shape, value.type = _flat_shape(before), before.type
            if not read_once(node):
                replaced[before] = _as_before(build, value, before)
    mixed = build.node("MatMul", value, _flat(build, one.mixed.inputs[1]))
    result = one.mixed.outputs[0]
    replaced[result] = _as_before(build, mixed, result)
    ir.convenience.replace_nodes_and_values(
        graph, one.mixed, [*reversed(one.nodes)], build.nodes, [*replaced], [*replaced.values()]
    )


def _same(build: Builder, node: ir.Node, value: ir.Value) -> ir.Value:
    """Add a node like another, that takes a value in the place of its large input."""
    inputs = [value if _is_large(given) else given for given in node.inputs]
    if node.op_type == "Softmax":
        return build.node("Softmax", value, axis=-1)
    if node.op_type == "Cast":
        return build.node("Cast", value, to=node.attributes["to"].as_int())
    return build.node(node.op_type, *inputs)


def _flat(build: Builder, value: ir.Value | None) -> ir.Value:
    """Join the batch and the heads of a value."""
    assert value is not None
    _, rows, columns = _lengths(value)
    return build.node("Reshape", value, np.array([-1, rows, columns]))


def _as_before(build: Builder, value: ir.Value, before: ir.Value) -> ir.Value:
    """Divide the batch and the heads of a value again, as they are in another."""
    made = build.node("Reshape", value, np.array([-1, *_lengths(before)]))
    made.name, made.shape, made.type = before.name, before.shape, before.type
    return made


def _flat_shape(value: ir.Value) -> ir.Shape:
    """Return the shape of a value whose batch and heads are joined."""
    assert value.shape is not None
    (batch, *_), (heads, rows, columns) = value.shape, _lengths(value)
    return ir.Shape([batch * heads if isinstance(batch, int) else None, rows, columns])


def _lengths(value: ir.Value) -> list[int]:
    """Return the lengths of all axes but the first."""
    assert value.shape is not None
    return [int(dim) for dim in value.shape[1:] if isinstance(dim, int)]


def _attention(softmax: ir.Node) -> Attention | None:
    if softmax.attributes.get_int("axis", -1) not in (-1, RANK - 1):
        return None
    scaling: list[ir.Node] = []
    node = softmax.inputs[0].producer() if softmax.inputs[0] is not None else None
    while node is not None and read_once(node) and _scales(node):
        scaling.insert(0, node)
        large = next(given for given in node.inputs if _is_large(given))
        node = large.producer() if large is not None else None
    casts, mixed = _readers(softmax)
    if node is None or node.op_type != "MatMul" or not read_once(node) or mixed is None:
        return None
    fits = all(map(_is_grid, (*softmax.outputs, *node.outputs, *mixed.outputs)))
    alike = all(_alike(*product.inputs) for product in (node, mixed))
    return Attention(node, tuple(scaling), softmax, casts, mixed) if fits and alike else None


def _readers(softmax: ir.Node) -> tuple[tuple[ir.Node, ...], ir.Node | None]:
    """Return the casts of a softmax, and the one product whose first operand they lead to; else None."""
    casts: list[ir.Node] = []
    value = softmax.outputs[0]
    while True:
        products = [use.node for use in value.uses() if use.node.op_type == "MatMul" and use.idx == 0]
        if products:
            return tuple(casts), products[0] if len(products) == 1 else None
        following = [use.node for use in value.uses() if use.node.op_type == "Cast"]
        if len(following) != 1:
            return tuple(casts), None
        casts.append(following[0])
        value = following[0].outputs[0]


def _is_large(value: ir.Value | None) -> bool:
    return value is not None and (value.const_value is None or value.const_value.size != 1)


def _scales(node: ir.Node) -> bool:
    """Return whether a node casts, or computes with a single number of rank 3 at most."""
    if node.op_type == "Cast":
        return True
    numbers = [given for given in node.inputs if given is not None and not _is_large(given)]
    alone = len(numbers) == len(node.inputs) - 1
    return node.op_type in _SCALING and alone and all((_rank(number) or 0) < RANK for number in numbers)


def _alike(one: ir.Value | None, other: ir.Value | None) -> bool:
    """Return whether two operands of a product have the same batch and heads, so that none is broadcast."""
    if one is None or other is None or not _is_grid(one) or not _is_grid(other):
        return False
    assert one.shape is not None and other.shape is not None
    known = isinstance(one.shape[0], int) or one.shape[0].value is not None
    return known and one.shape[:2] == other.shape[:2]


def _is_grid(value: ir.Value | None) -> bool:
    shape = value.shape if value is not None else None
    return shape is not None and len(shape) == RANK and all(isinstance(dim, int) for dim in list(shape)[1:])


def _run(model: ir.Model, context: PassContext) -> bool:
    changed, others = attention_rank3(model) > 0, left(model)
    if others or not softmaxes(model):
        name = others[0].name or others[0].outputs[0].name if others else ""
        raise InputError(
            "attention cannot be written over tensors of rank 3",
            got=f"{len(others)} attentions of another form, such as {name}" if others else "no attention",
            expected="products of queries, keys and values with the same batch and heads, and nothing but "
            "numbers between them",
            fix="leave --attention out",
        )
    return changed


PASS = Pass("attention-rank3", _run)
