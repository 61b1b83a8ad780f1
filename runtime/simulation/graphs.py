"""The simulated NPU's arithmetic written into an ONNX graph, so that any runtime on CPU computes it.

Added nodes round the operands of products and convolutions. They round to HF32 by a Veltkamp split (Dekker,
"A floating-point technique for extending the available precision", 1971), which takes a product with 2^12 + 1
and two differences, and to float16 by a cast to float16 and back. On a device that saturates, NaN becomes 0
and what is beyond float16 its greatest number before that cast. The weights file stays unchanged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from vconv.runtime.simulation.arithmetic import (
    CONVOLUTION,
    FP16_GREATEST,
    FUSIONS,
    GELU,
    HF32_DROPPED,
    INF,
    MATMUL,
    ON,
    SATURATES,
    Arithmetic,
)
from vconv.runtime.simulation.fusions import fused

_CAUSES = {"MatMul": MATMUL, "Gemm": MATMUL, "Conv": CONVOLUTION}
_OPERANDS = (0, 1)
"""The positions of a product's inputs to round; a bias is added in float32."""
_SPLITTER, _ZERO, _LEAST, _GREATEST = "vconv_veltkamp", "vconv_zero", "vconv_least", "vconv_greatest"
_CONSTANTS: Mapping[str, float] = {
    _SPLITTER: (1 << HF32_DROPPED) + 1,
    _ZERO: 0.0,
    _LEAST: -FP16_GREATEST,
    _GREATEST: FP16_GREATEST,
}
"""The added initializers, float32 scalars, by name."""


def _hf32(value: str, rounded: str) -> list[NodeProto]:
    """Keep 24 - 12 significant bits of float32: the implicit first bit, and HF32's 11 bits of fraction."""
    big, rest = f"{rounded}_big", f"{rounded}_rest"
    return [
        helper.make_node("Mul", [value, _SPLITTER], [big]),
        helper.make_node("Sub", [big, value], [rest]),
        helper.make_node("Sub", [big, rest], [rounded]),
    ]


def _fp16(value: str, rounded: str) -> list[NodeProto]:
    half = f"{rounded}_half"
    return [
        helper.make_node("Cast", [value], [half], to=TensorProto.FLOAT16),
        helper.make_node("Cast", [half], [rounded], to=TensorProto.FLOAT),
    ]


def _saturated_fp16(value: str, rounded: str) -> list[NodeProto]:
    """Round as :func:`vconv.runtime.simulation.arithmetic.saturate_fp16`."""
    is_nan, number, within = f"{rounded}_is_nan", f"{rounded}_number", f"{rounded}_within"
    return [
        helper.make_node("IsNaN", [value], [is_nan]),
        helper.make_node("Where", [is_nan, _ZERO, value], [number]),
        helper.make_node("Clip", [number, _LEAST, _GREATEST], [within]),
        *_fp16(within, rounded),
    ]


_ROUNDINGS: Mapping[tuple[str, str], Callable[[str, str], list[NodeProto]]] = {
    ("hf32", INF): _hf32,
    ("hf32", SATURATES): _hf32,
    ("fp16", INF): _fp16,
    ("fp16", SATURATES): _saturated_fp16,
}
"""What operands are rounded to, and what an overflow gives -> the nodes that round."""


def rewritten(model: onnx.ModelProto, arithmetic: Arithmetic) -> tuple[onnx.ModelProto, Counter[str]]:
    """Write an arithmetic into a graph.

    A GELU that is composed with Erf stays unchanged, unless the arithmetic has fusions and one of them would
    replace it. The operator Gelu, whose form the device chooses, changes to its tanh form.

    Args:
        model: a graph in float32; it stays unchanged.
        arithmetic: how the device computes.

    Returns:
        The new graph, with the same references to its weights, and how many nodes each cause changed.
    """
    changed: Counter[str] = Counter()
    if arithmetic.fusions == ON:
        model, replaced = fused(model)
        changed[FUSIONS] = len(replaced)
    nodes: list[NodeProto] = []
    made: set[str] = set()
    for original in model.graph.node:
        node = NodeProto()
        node.CopyFrom(original)
        if node.op_type == "Gelu" and arithmetic.gelu == "tanh" and not _is_tanh(node):
            del node.attribute[:]
            node.attribute.append(helper.make_attribute("approximate", "tanh"))
            changed[GELU] += 1
        cause = _CAUSES.get(node.op_type, "")
        rounding = getattr(arithmetic, cause) if cause else "fp32"
        rounds = _ROUNDINGS.get((rounding, arithmetic.overflow))
        if rounds:
            for place in _OPERANDS:
                value = node.input[place]
                rounded = f"{value}_{rounding}"
                if rounded not in made:
                    nodes += rounds(value, rounded)
                    made.add(rounded)
                node.input[place] = rounded
            changed[cause] += 1
        nodes.append(node)
    new = onnx.ModelProto()
    new.CopyFrom(model)
    del new.graph.node[:]
    new.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    for name in sorted(used & _CONSTANTS.keys()):
        number = np.asarray(_CONSTANTS[name], np.float32)
        new.graph.initializer.append(numpy_helper.from_array(number, name))
    return new, changed


def _is_tanh(node: NodeProto) -> bool:
    return any(attribute.name == "approximate" and attribute.s == b"tanh" for attribute in node.attribute)
