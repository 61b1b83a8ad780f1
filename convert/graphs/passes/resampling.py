"""Nodes that make the matrix of a cubic resampling inside a graph, for a length that only the run knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

KEYS_ANTIALIASED = -0.5
"""The coefficient of torch's antialiased cubic filter, which is Keys' own."""

Given = ir.Value | float | np.ndarray | None
"""An input of a node; None stands for an optional input that is left out."""


class Builder:
    """Makes the nodes and constants of one computation, with names that begin alike.

    Args:
        graph: the graph that gets the constants.
        name: the beginning of every name.
    """

    def __init__(self, graph: ir.Graph, name: str) -> None:
        self._graph, self._name, self._tape = graph, name, Tape()

    @property
    def nodes(self) -> list[ir.Node]:
        """The nodes, in order."""
        return list(self._tape.nodes)

    def node(
        self, operator: str, *inputs: Given, **attributes: int | float | str | tuple[int, ...]
    ) -> ir.Value:
        """Add a node; numbers and arrays among its inputs become constants of the graph."""
        (value,) = self.several(operator, 1, *inputs, **attributes)
        value.name = f"{self._name}_{len(self._tape.nodes)}"
        return value

    def several(
        self,
        operator: str,
        count: int,
        *inputs: Given,
        **attributes: int | float | str | tuple[int, ...],
    ) -> Sequence[ir.Value]:
        """Add a node with several outputs, which the caller names: see :meth:`node`."""
        given = [one if isinstance(one, ir.Value | None) else self.constant(one) for one in inputs]
        made = self._tape.op_multi_out(operator, given, attributes or None, num_outputs=count)
        node = made[0].producer()
        assert node is not None
        node.name = f"{self._name}_{len(self._tape.nodes)}"
        return made

    def constant(self, value: float | np.ndarray) -> ir.Value:
        """Add a constant; the same constant of this computation is added once."""
        array = np.asarray(value, None if isinstance(value, np.ndarray) else np.float32)
        known = self._graph.initializers
        mine = [one for name, one in known.items() if name.startswith(f"{self._name}_constant")]
        for one in mine:
            there = one.const_value.numpy() if one.const_value is not None else None
            if there is not None and there.dtype == array.dtype and np.array_equal(there, array):
                return one
        name = f"{self._name}_constant_{len(mine)}"
        made = ir.Value(
            name=name,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            const_value=ir.tensor(array, name=name),
        )
        self._graph.register_initializer(made)
        return made


def counted(
    build: Builder, count: ir.Value, start: float, greatest: int, kind: type[np.generic] = np.float32
) -> ir.Value:
    """Return ``start, start + 1, ...`` (count,): the beginning of a table.

    Args:
        build: makes the nodes.
        count: the length, as int64 (1,).
        start: the first number.
        greatest: the greatest length.
        kind: the type of the numbers.
    """
    zero = np.zeros(1, np.int64)
    return build.node("Slice", (start + np.arange(greatest)).astype(kind), zero, count, zero)


@dataclass(frozen=True)
class CubicFilter:
    """A cubic filter.

    Args:
        a: its coefficient.
        antialiased: whether it is widened by the scale when the row shrinks, cut off at the edges, and
            normalised; otherwise the edges are repeated.
    """

    a: float
    antialiased: bool


def resampling_matrix(
    build: Builder, size: int, resized: ir.Value, kind: CubicFilter, greatest: int
) -> ir.Value:
    """Return the matrix, float32 (resized, size), that resamples a row by cubic convolution.

    It has the values of ``cubic_matrix`` and ``antialiased_matrix`` in
    :mod:`vconv.convert.graphs.passes.resize_as_matmul`. Without antialiasing, two weights beyond each edge
    are computed too, and added to those of the edge.

    Args:
        build: makes the nodes.
        size: the length of the row.
        resized: the length that it is resampled to, as int64 (1,).
        kind: the filter.
        greatest: the greatest ``resized``.
    """
    beyond = 0 if kind.antialiased else 2
    pixels = (np.arange(-beyond, size + beyond) + 0.5).astype(np.float32)[None]
    scale = build.node("Div", float(size), build.node("Cast", resized, to=ir.DataType.FLOAT.value))
    centres = build.node("Mul", counted(build, resized, 0.5, greatest), scale)
    column = build.node("Reshape", centres, np.array([-1, 1]))
    distances = build.node("Abs", build.node("Sub", pixels, column))
    if kind.antialiased:
        distances = build.node("Div", distances, build.node("Max", scale, 1.0))
    weights = keys(build.node, distances, kind.a)
    if kind.antialiased:
        return build.node("Div", weights, build.node("ReduceSum", weights, np.array([1]), keepdims=1))
    folded = np.zeros((size + 2 * beyond, size), np.float32)
    folded[np.arange(size + 2 * beyond), np.clip(np.arange(-beyond, size + beyond), 0, size - 1)] = 1
    return build.node("MatMul", weights, folded)


def keys(node: Callable[..., ir.Value], t: ir.Value, a: float) -> ir.Value:
    """Return the weights of Keys' cubic convolution for pixels at these distances."""
    near = node("Sub", node("Mul", t, a + 2), a + 3)
    near = node("Add", node("Mul", node("Mul", near, t), t), 1.0)
    far = node("Add", node("Mul", node("Sub", node("Mul", t, a), 5 * a), t), 8 * a)
    far = node("Sub", node("Mul", far, t), 4 * a)
    far = node("Where", node("Less", t, 2.0), far, 0.0)
    return node("Where", node("Less", t, 1.0), near, far)
