"""Compute products with weights in 8-bit whole numbers: by QDQ, or with the ranges of each run.

Case 1: a product whose plan has a range: what it multiplies is quantised and dequantised by this range, its
        weight is dequantised from 8 bits with one scale for each output. Engines can compute the product of
        such a pair in whole numbers. A value that several products multiply is quantised once.
Case 2: a product whose plan has no range: ``DynamicQuantizeLinear`` and ``MatMulInteger`` compute it.
Case 3: a plan with smoothing: what is multiplied is first divided by one number for each channel.
Case 4: any other node, and any other weight: it stays in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from vconv.convert.graphs.passes.base import Condition, Pass, PassContext
from vconv.convert.graphs.passes.point_at_weights import point_at
from vconv.convert.reduced.islands import WIDE
from vconv.convert.reduced.plan import Quantised, Range
from vconv.convert.reduced.products import WeightProduct, weight_products
from vconv.convert.reduced.quantised_weights import SCALE, SMOOTHING, WHOLE

_UNSIGNED = ir.TensorType(ir.DataType.UINT8)


class _Writer:
    """Writes quantised products into a graph.

    Args:
        model: the graph.
        context: the plan, and the header of the weights file.
        products: those that are quantised.
    """

    def __init__(self, model: ir.Model, context: PassContext, products: Sequence[WeightProduct]) -> None:
        assert context.plan is not None
        self._graph, self._plan, self._entries = model.graph, context.plan, context.entries
        self._made: dict[tuple[str, str], tuple[ir.Value, ...]] = {}
        stored = ((one.given.name or "", one.weight + SMOOTHING) for one in products)
        self._smoothing = {given: name for given, name in stored if name in self._entries}

    def write(self, product: WeightProduct) -> None:
        """Replace one product."""
        how = self._plan.quantised[product.weight]
        given = self._smoothed(product, how)
        if how.activation is None:
            self._replace_whole(product, given)
            return
        span = how.activation
        kept = self._once(given, "dequantised", lambda: self._dequantised(product, given, span))
        product.node.replace_input_with(0, kept[0])
        product.node.replace_input_with(1, self._weight(product))

    def _once(
        self, value: ir.Value, what: str, make: Callable[[], tuple[ir.Value, ...]]
    ) -> tuple[ir.Value, ...]:
        key = value.name or "", what
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def _stored(self, name: str) -> ir.Value:
        if name in self._graph.initializers:
            return self._graph.initializers[name]
        value = ir.Value(name=name, shape=ir.Shape(self._entries[name].shape))
        point_at(value, self._entries[name])
        self._graph.register_initializer(value)
        return value

    def _constant(self, name: str, array: np.ndarray, dtype: ir.DataType) -> ir.Value:
        tensor = ir.tensor(array, dtype, name=name)
        value = ir.Value(
            name=name, type=ir.TensorType(dtype), shape=ir.Shape(array.shape), const_value=tensor
        )
        self._graph.register_initializer(value)
        return value

    def _node(
        self,
        before: ir.Node,
        operator: str,
        inputs: list[ir.Value],
        name: str,
        *types: ir.TensorType,
        **more: int,
    ) -> tuple[ir.Value, ...]:
        node = ir.node(operator, inputs, more, num_outputs=len(types), name=name)
        for place, (value, kind) in enumerate(zip(node.outputs, types, strict=True)):
            value.name, value.type = name if not place else f"{name}_{place}", kind
            value.shape = inputs[0].shape if not place else ir.Shape([])
        self._graph.insert_before(before, node)
        return tuple(node.outputs)

    def _smoothed(self, product: WeightProduct, how: Quantised) -> ir.Value:
        if how.smoothing is None:
            return product.given
        name = f"{product.given.name}_smoothed"

        def make() -> tuple[ir.Value, ...]:
            factors = self._stored(self._smoothing[product.given.name or ""])
            return self._node(product.node, "Mul", [product.given, factors], name, ir.TensorType(WIDE))

        return self._once(product.given, "smoothed", make)[0]

    def _dequantised(self, product: WeightProduct, given: ir.Value, span: Range) -> tuple[ir.Value, ...]:
        name = given.name or ""
        scale = self._constant(f"{name}_scale", np.array(span.scale, np.float32), WIDE)
        zero = self._constant(f"{name}_zero_point", np.array(span.zero_point, np.uint8), ir.DataType.UINT8)
        (whole,) = self._node(
            product.node, "QuantizeLinear", [given, scale, zero], f"{name}_quantised", _UNSIGNED
        )
        return self._node(
            product.node, "DequantizeLinear", [whole, scale, zero], f"{name}_dequantised", ir.TensorType(WIDE)
        )

    def _weight(self, product: WeightProduct) -> ir.Value:
        whole, scale = self._stored(product.weight + WHOLE), self._stored(product.weight + SCALE)
        name, kind = f"{product.weight}_dequantised", ir.TensorType(WIDE)
        return self._once(
            whole,
            "dequantised",
            lambda: self._node(product.node, "DequantizeLinear", [whole, scale], name, kind, axis=1),
        )[0]

    def _replace_whole(self, product: WeightProduct, given: ir.Value) -> None:
        """Write ``DynamicQuantizeLinear``, ``MatMulInteger``, a cast, and a product with both scales."""
        node, kind = product.node, ir.TensorType(WIDE)
        name = given.name or ""
        whole, scale, zero = self._once(
            given,
            "dynamic",
            lambda: self._node(
                node, "DynamicQuantizeLinear", [given], f"{name}_quantised", _UNSIGNED, kind, _UNSIGNED
            ),
        )
        weight, scales = self._stored(product.weight + WHOLE), self._stored(product.weight + SCALE)
        (output,) = node.outputs
        called = output.name
        (sums,) = self._node(
            node,
            "MatMulInteger",
            [whole, weight, zero],
            f"{called}_sums",
            ir.TensorType(ir.DataType.INT32),
        )
        (wide,) = self._node(node, "Cast", [sums], f"{called}_wide", kind, to=int(WIDE))
        (factors,) = self._node(node, "Mul", [scales, scale], f"{called}_scales", kind)
        sums.shape = wide.shape = output.shape
        last = ir.node("Mul", [wide, factors], name=node.name)
        last.outputs[0].type, last.outputs[0].shape = kind, output.shape
        self._graph.insert_before(node, last)
        ir.convenience.replace_all_uses_with(output, last.outputs[0], replace_graph_outputs=True)
        self._graph.remove(node, safe=True)
        last.outputs[0].name = called


def _run(model: ir.Model, context: PassContext) -> bool:
    assert context.plan is not None
    products = [one for one in weight_products(model) if one.weight in context.plan.quantised]
    writer = _Writer(model, context, products)
    for product in products:
        writer.write(product)
    for name, value in model.graph.initializers.items():
        if isinstance(value.const_value, ir.ExternalTensor) and value.uses() and name in context.entries:
            point_at(value, context.entries[name])
    return bool(products)


def _left(model: ir.Model, context: PassContext) -> str:
    assert context.plan is not None
    missing = context.plan.quantised.keys() - {one.weight for one in weight_products(model)}
    return f"there is no product with {', '.join(sorted(missing))}" if missing else ""


PASS = Pass("quantise", _run, requires=(Condition("every planned product is in the graph", _left),))
