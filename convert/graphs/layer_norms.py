"""The LayerNorms of a graph, as one operator or spelled out.

Opsets below 17 have no ``LayerNormalization``. A graph for them computes
``(x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon) * scale + bias`` operator by operator, as graphs of
other exporters do. The square is a power of 2 or a product; a cast may stand before it, and another one
before the scale; the inputs of a sum and of a product may be in either order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from vconv.convert.graphs.constants import single
from vconv.convert.graphs.nodes import of_type, other_input, producer

NORM = "LayerNormalization"
DEFAULT_EPSILON = 1e-5
"""ONNX's default epsilon of LayerNormalization."""


@dataclass(frozen=True)
class LayerNorm:
    """One LayerNorm.

    Args:
        given: the value that it normalises.
        scale: the value that it multiplies by; None if it is spelled out without one.
        epsilon: what it adds to the variance.
        nodes: the nodes that compute it, up to the one that multiplies by the scale.
    """

    given: ir.Value | None
    scale: ir.Value | None
    epsilon: float
    nodes: tuple[ir.Node, ...]


@dataclass(frozen=True)
class Normalisation:
    """The nodes of a LayerNorm that is spelled out, without its scale and its bias.

    Args:
        mean: the mean of what is normalised.
        centred: the difference from the mean.
        cast: the cast of the difference before its square, or None.
        square: the square, a ``Pow`` or a ``Mul``.
        variance: the mean of the square.
        added: the sum of the variance and epsilon.
        root: the root of the sum.
        divided: the quotient of the difference and the root.
        small: the value that holds epsilon.
        epsilon: its number.
    """

    mean: ir.Node
    centred: ir.Node
    cast: ir.Node | None
    square: ir.Node
    variance: ir.Node
    added: ir.Node
    root: ir.Node
    divided: ir.Node
    small: ir.Value
    epsilon: float

    @property
    def given(self) -> ir.Value:
        """The value that is normalised."""
        (given, *_) = self.mean.inputs
        assert given is not None
        return given

    @property
    def nodes(self) -> tuple[ir.Node, ...]:
        """The nodes, in order."""
        cast = [self.cast] if self.cast else []
        return (
            *(self.mean, self.centred, *cast, self.square),
            *(self.variance, self.added, self.root, self.divided),
        )


def layer_norms(model: ir.Model) -> list[LayerNorm]:
    """List the LayerNorms of a graph, in order."""
    return list(_found(model))


def normalisations(model: ir.Model) -> Iterator[Normalisation]:
    """Yield the LayerNorms of a graph that are spelled out."""
    for root in of_type(model, "Sqrt"):
        found = _around(root)
        if found is not None:
            yield found


def _found(model: ir.Model) -> Iterator[LayerNorm]:
    spelled_out = {found.root: found for found in normalisations(model)}
    for node in model.graph.all_nodes():
        if node.op_type == NORM:
            epsilon = node.attributes.get_float("epsilon", DEFAULT_EPSILON)
            yield LayerNorm(node.inputs[0], node.inputs[1], epsilon, (node,))
        elif node in spelled_out:
            yield from _scaled(spelled_out[node])


def _scaled(found: Normalisation) -> Iterator[LayerNorm]:
    """Yield one LayerNorm for each product with what is normalised; one without a scale if there is none."""
    normal, nodes = found.divided.outputs[0], found.nodes
    casts = [use.node for use in normal.uses() if use.node.op_type == "Cast"]
    if len(casts) == 1 == len(normal.uses()):
        normal, nodes = casts[0].outputs[0], (*nodes, casts[0])
    products = dict.fromkeys(use.node for use in normal.uses() if use.node.op_type == "Mul")
    for product in products:
        yield LayerNorm(found.given, other_input(product, normal), found.epsilon, (*nodes, product))
    if not products:
        yield LayerNorm(found.given, None, found.epsilon, found.nodes)


def _around(root: ir.Node) -> Normalisation | None:
    """Return the normalisation that divides by a root."""
    added = producer(root.inputs[0], "Add")
    if added is None:
        return None
    variance = next((found for one in added.inputs if (found := producer(one, "ReduceMean"))), None)
    small = other_input(added, variance.outputs[0]) if variance is not None else None
    epsilon = single(small)
    square = _square(variance.inputs[0]) if variance is not None else None
    if variance is None or square is None or small is None or epsilon is None:
        return None
    cast = producer(square.inputs[0], "Cast")
    centred = producer(cast.inputs[0] if cast is not None else square.inputs[0], "Sub")
    mean = producer(centred.inputs[1], "ReduceMean") if centred is not None else None
    if centred is None or mean is None or mean.inputs[0] is not centred.inputs[0]:
        return None
    quotients = (use.node for use in root.outputs[0].uses() if use.node.op_type == "Div")
    divided = next((node for node in quotients if node.inputs[0] is centred.outputs[0]), None)
    if divided is None or divided.inputs[1] is not root.outputs[0]:
        return None
    number = float(epsilon.item())
    return Normalisation(mean, centred, cast, square, variance, added, root, divided, small, number)


def _square(value: ir.Value | None) -> ir.Node | None:
    """Return the node that gives a value, if it is a square."""
    power, product = producer(value, "Pow"), producer(value, "Mul")
    if power is not None:
        return power if single(power.inputs[1]) == 2 else None
    return product if product is not None and len({*product.inputs}) == 1 else None
