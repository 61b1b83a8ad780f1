"""The products of a graph: those with weights, which may be quantised, and what each product costs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from vconv.convert.graphs.nodes import producer

PRODUCTS = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose"})
"""Operators that multiply and add: nearly all the cost of a vision transformer."""


@dataclass(frozen=True)
class WeightProduct:
    """A matrix product of something computed with a weight.

    Args:
        node: the product.
        given: what is multiplied.
        weight: the name of the weight, or of the rows of it that the product takes.
        stored: the name of the tensor in the weights file.
        start: the first row of the tensor that it takes.
        rows: the number of rows that it takes.
        transposed: whether the graph transposes the weight, which is then stored as (outputs, inputs).
    """

    node: ir.Node
    given: ir.Value
    weight: str
    stored: str
    start: int
    rows: int
    transposed: bool


def weight_products(model: ir.Model) -> list[WeightProduct]:
    """List the matrix products with weights of two dimensions, in the order of the graph."""
    return list(filter(None, map(_weight_product, model.graph)))


def _weight_product(node: ir.Node) -> WeightProduct | None:
    if node.op_type != "MatMul" or node.inputs[0] is None:
        return None
    value = node.inputs[1]
    transpose = producer(value, "Transpose")
    if transpose is not None:
        if tuple(transpose.attributes.get_ints("perm", (1, 0))) != (1, 0):
            return None
        value = transpose.inputs[0]
    split = producer(value, "Split")
    start, part = 0, value
    if split is not None and value is not None:
        if split.attributes.get_int("axis", 0) != 0:
            return None
        for output in split.outputs:
            if output is value:
                break
            start += _rows(output)
        value = split.inputs[0]
    cast = producer(value, "Cast")
    value = cast.inputs[0] if cast is not None else value
    if value is None or not isinstance(value.const_value, ir.ExternalTensor) or part is None:
        return None
    if value.shape is None or len(value.shape) != 2:
        return None
    rows = _rows(part) if split is not None else _rows(value)
    name = part.name if split is not None else value.name
    assert name and value.name
    return WeightProduct(node, node.inputs[0], name, value.name, start, rows, transpose is not None)


def _rows(value: ir.Value) -> int:
    assert value.shape is not None
    return int(value.shape.numpy()[0])


def multiply_adds(model: ir.Model) -> dict[str, int]:
    """Return the multiply-adds of each product of a graph, for one image, by the name of its node.

    Args:
        model: a graph whose shapes are known but for the batch; any symbol in a shape counts as 1. A product
            whose shapes are not known is left out.
    """
    return dict(_costs(model))


def shaped(model: ir.Model) -> ir.Model:
    """Return a copy of a graph in which every shape is known that can be inferred."""
    copy = ir.from_proto(ir.to_proto(model))
    return ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(copy).model


def _costs(model: ir.Model) -> Iterator[tuple[str, int]]:
    for node in model.graph:
        if node.op_type not in PRODUCTS or node.name is None:
            continue
        given, weight = node.inputs[0], node.inputs[1]
        assert given is not None and weight is not None
        sizes = [_sizes(value) for value in (node.outputs[0], given, weight)]
        if any(one is None for one in sizes):
            continue
        made, taken, held = (one or () for one in sizes)
        if node.op_type == "Conv":
            yield node.name, math.prod(made) * math.prod(held[1:])
        elif node.op_type == "ConvTranspose":
            yield node.name, math.prod(taken) * math.prod(held[1:])
        else:
            turned = node.op_type == "Gemm" and node.attributes.get_int("transA", 0) == 1
            yield node.name, math.prod(made) * taken[-2 if turned else -1]


def _sizes(value: ir.Value) -> tuple[int, ...] | None:
    if value.shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else 1 for dim in value.shape)
