"""Write attention over tensors of rank 3: one matrix for each image and head, in place of a grid of matrices.

On an Ascend 310P, batched products of rank 3 are reported to run faster than those of rank 4. The values are
the same: only shapes change.

Case 1: MatMul, any products and sums with single numbers, Softmax over the last axis, MatMul, all of rank 4
        and with known lengths but for the batch: it becomes the same of rank 3, with a ``Reshape`` of each
        input and of the result.
Case 2: any other attention, such as one with a bias on the scores, or none at all: the export is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vconv.convert.ascend.fusions.nodes import only_reader, read_once
from vconv.convert.graphs.passes.base import Pass, PassContext
from vconv.convert.graphs.passes.resampling import Builder
from vconv.errors import InputError

RANK = 4
_SCALING = ("Mul", "Div", "Add", "Sub")


@dataclass(frozen=True)
class Attention:
    """An attention of case 1.

    Args:
        scores: the product of queries and keys.
        scaling: what is computed with single numbers between it and the softmax.
        softmax: the softmax.
        mixed: the product of the weights and the values.
    """

    scores: ir.Node
    scaling: tuple[ir.Node, ...]
    softmax: ir.Node
    mixed: ir.Node

    @property
    def nodes(self) -> tuple[ir.Node, ...]:
        """Its nodes, in order."""
        return self.scores, *self.scaling, self.softmax, self.mixed


def attentions(graph: ir.Graph) -> list[Attention]:
    """List the attentions of case 1."""
    found = (_attention(node) for node in graph if node.op_type == "Softmax")
    return [one for one in found if one is not None]


def left(graph: ir.Graph) -> int:
    """Count the softmaxes of rank 4 between two products."""
    return sum(
        node.op_type == "Softmax"
        and len(node.inputs[0].shape or ()) == RANK
        and only_reader(node, "MatMul") is not None
        for node in graph
        if node.inputs and node.inputs[0] is not None
    )


def attention_rank3(graph: ir.Graph) -> int:
    """Rewrite every attention of case 1, in place; return how many there were."""
    found = attentions(graph)
    for number, one in enumerate(found):
        build = Builder(graph, f"attention_{number}")
        value = build.node("MatMul", *(_flat(build, given) for given in one.scores.inputs))
        for node in one.scaling:
            inputs = [value if _is_large(given) else given for given in node.inputs if given is not None]
            value = build.node(node.op_type, *inputs)
        weights = build.node("Softmax", value, axis=-1)
        mixed = build.node("MatMul", weights, _flat(build, one.mixed.inputs[1]))
        result = one.mixed.outputs[0]
        made = build.node("Reshape", mixed, np.array([-1, *_lengths(result)]))
        made.name, made.shape, made.type = result.name, result.shape, result.type
        ir.convenience.replace_nodes_and_values(
            graph, one.mixed, [*reversed(one.nodes)], build.nodes, [result], [made]
        )
    return len(found)


def _flat(build: Builder, value: ir.Value | None) -> ir.Value:
    """Join the batch and the heads of a value."""
    assert value is not None
    _, rows, columns = _lengths(value)
    return build.node("Reshape", value, np.array([-1, rows, columns]))


def _lengths(value: ir.Value) -> list[int]:
    """Return the lengths of all axes but the first."""
    assert value.shape is not None
    return [int(dim) for dim in value.shape[1:] if isinstance(dim, int)]


def _attention(softmax: ir.Node) -> Attention | None:
    if softmax.attributes.get_int("axis", -1) not in (-1, RANK - 1):
        return None
    scaling: list[ir.Node] = []
    node = softmax.inputs[0].producer() if softmax.inputs[0] is not None else None
    while node is not None and node.op_type in _SCALING and _scales(node):
        scaling.insert(0, node)
        large = next(given for given in node.inputs if _is_large(given))
        node = large.producer() if large is not None else None
    mixed = only_reader(softmax, "MatMul")
    if node is None or node.op_type != "MatMul" or mixed is None:
        return None
    found = Attention(node, tuple(scaling), softmax, mixed)
    values = [value for one in (node, mixed) for value in (*one.inputs, *one.outputs)]
    once = all(read_once(one) for one in found.nodes[:-1])
    return found if once and mixed.inputs[0] is softmax.outputs[0] and all(map(_is_grid, values)) else None


def _is_large(value: ir.Value | None) -> bool:
    return value is not None and (value.const_value is None or value.const_value.size != 1)


def _scales(node: ir.Node) -> bool:
    """Return whether a node computes with a single number of rank 3 at most, and its result is read once."""
    numbers = [given for given in node.inputs if given is not None and not _is_large(given)]
    return (
        len(numbers) == len(node.inputs) - 1
        and all(len(number.shape or ()) < RANK for number in numbers)
        and read_once(node)
    )


def _is_grid(value: ir.Value | None) -> bool:
    shape = value.shape if value is not None else None
    return shape is not None and len(shape) == RANK and all(isinstance(dim, int) for dim in list(shape)[1:])


def _run(model: ir.Model, context: PassContext) -> bool:
    changed = attention_rank3(model.graph) > 0
    others, softmaxes = left(model.graph), any(node.op_type == "Softmax" for node in model.graph)
    if others or not softmaxes:
        raise InputError(
            "attention cannot be written over tensors of rank 3",
            got=f"{others} attentions of another form, such as one with a bias" if others else "no attention",
            expected="products of queries, keys and values, and nothing but numbers between them",
            fix="leave --attention out",
        )
    return changed


PASS = Pass("attention-rank3", _run)
