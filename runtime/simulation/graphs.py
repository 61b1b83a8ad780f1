"""The simulated NPU's arithmetic written into an ONNX graph, so that any runtime on CPU computes it.

Added nodes round the operands of products and convolutions. They round to HF32 by a Veltkamp split (Dekker,
"A floating-point technique for extending the available precision", 1971), which takes a product with 2^12 + 1
and two differences, and to float16 by a cast to float16 and back. The weights file stays unchanged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from vconv.runtime.simulation.arithmetic import (
    CONVOLUTION,
    FUSIONS,
    GELU,
    HF32_DROPPED,
    MATMUL,
    ON,
    Arithmetic,
)
from vconv.runtime.simulation.fusions import fused

_CAUSES = {"MatMul": MATMUL, "Gemm": MATMUL, "Conv": CONVOLUTION}
_OPERANDS = (0, 1)
"""The positions of a product's inputs to round; a bias is added in float32."""
_SPLITTER = "vconv_veltkamp"


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


_ROUNDINGS: Mapping[str, Callable[[str, str], list[NodeProto]]] = {"hf32": _hf32, "fp16": _fp16}


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
        model, changed[FUSIONS] = fused(model)
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
        if rounding in _ROUNDINGS:
            for place in _OPERANDS:
                value = node.input[place]
                rounded = f"{value}_{rounding}"
                if rounded not in made:
                    nodes += _ROUNDINGS[rounding](value, rounded)
                    made.add(rounded)
                node.input[place] = rounded
            changed[cause] += 1
        nodes.append(node)
    new = onnx.ModelProto()
    new.CopyFrom(model)
    del new.graph.node[:]
    new.graph.node.extend(nodes)
    splitter = np.float32((1 << HF32_DROPPED) + 1)
    new.graph.initializer.append(numpy_helper.from_array(np.asarray(splitter), _SPLITTER))
    return new, changed


def _is_tanh(node: NodeProto) -> bool:
    return any(attribute.name == "approximate" and attribute.s == b"tanh" for attribute in node.attribute)
