"""The passes that join a product, a convolution or a division with what stands beside it.

Sources: hiascend.com, "Graph Fusion and UB Fusion Patterns", one page a pass; canndev,
``realdiv_2_muls_fusion_pass.cc`` and ``mul_add_fusion_pass.cc`` (2019 to 2022).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from vconv.convert.ascend.fusions.base import Effect, Fusion, Match
from vconv.convert.ascend.fusions.numbers import number
from vconv.convert.graphs.constants import single
from vconv.convert.graphs.nodes import of_type, only_reader, other_input

LEAST_DIVISOR = 1e-6


def _pairs(model: ir.Model, first: str, second: str) -> Iterator[tuple[ir.Node, ir.Node]]:
    """Yield two nodes of which the second alone reads what the first gives."""
    for node in of_type(model, first):
        reader = only_reader(node, second)
        if reader is not None:
            yield node, reader


def _matched(*nodes: ir.Node) -> Iterator[Match]:
    operand = nodes[0].inputs[0]
    if operand is not None:
        yield Match(nodes, operand, Effect.ROUNDING)


def _with_bias(model: ir.Model) -> Iterator[Match]:
    for product, added in _pairs(model, "MatMul", "Add"):
        bias = other_input(added, product.outputs[0])
        constant = bias.const_value if bias is not None else None
        if constant is not None and len(constant.shape) == 1:
            yield from _matched(product, added)


def _with_cast(first: str, model: ir.Model) -> Iterator[Match]:
    for product, cast in _pairs(model, first, "Cast"):
        narrow = product.outputs[0].dtype is ir.DataType.FLOAT16
        if narrow and cast.attributes.get_int("to", 0) == ir.DataType.FLOAT:
            yield from _matched(product, cast)


def _product_with_cast(model: ir.Model) -> Iterator[Match]:
    return _with_cast("MatMul", model)


def _convolution_with_cast(model: ir.Model) -> Iterator[Match]:
    return _with_cast("Conv", model)


def _with_batch_norm(model: ir.Model) -> Iterator[Match]:
    for nodes in _pairs(model, "Conv", "BatchNormalization"):
        yield from _matched(*nodes)


def _by_constant(model: ir.Model) -> Iterator[Match]:
    for divided in of_type(model, "Div"):
        divisor, constant = number(divided.inputs[1]), single(divided.inputs[1])
        if divisor is None or constant is None or abs(divisor) <= LEAST_DIVISOR:
            continue
        if constant.dtype == np.float32:
            yield from _matched(divided)


def _named_bert(model: ir.Model) -> Iterator[Match]:
    for product, added in _pairs(model, "Mul", "Add"):
        name = (product.name or "").lower()
        if "bert" in name and "adam" not in name and "lamb" not in name:
            yield from _matched(product, added)


_PATTERNS = "hiascend.com, Graph Fusion and UB Fusion Patterns"
_CODE = "canndev, fusion_pass/graph_fusion/ai_core"
FUSIONS = (
    Fusion(
        "MatMulBiasAddFusionPass",
        "MatMul, Add",
        "the bias is a constant row; the product is read once",
        "MatMulV2 or BatchMatMulV2 with a bias",
        "none in float32; a float16 bias is added in float32, which is more precise",
        "A2, A3 and 950; seen to fire on a 310P",
        f"{_PATTERNS}, MatMulBiasAddFusionPass",
        _with_bias,
    ),
    Fusion(
        "MatmulCastFusionPass",
        "MatMul, Cast",
        "a float16 product that is cast to float32, and read by the cast alone",
        "BatchMatMulV2 that gives float32",
        "one rounding to float16 less",
        "310P and 910",
        f"{_PATTERNS}, MatmulCastFusionPass",
        _product_with_cast,
    ),
    Fusion(
        "ConvCastFusionPass",
        "Conv, Cast",
        "a float16 convolution that is cast to float32, and read by the cast alone",
        "Conv2D that gives float32",
        "one rounding to float16 less",
        "310P, 310B and 910",
        f"{_PATTERNS}, ConvCastFusionPass",
        _convolution_with_cast,
    ),
    Fusion(
        "ConvBatchnormFusionPass",
        "Conv, BatchNormalization",
        "the convolution is read once",
        "Conv2D with other weights",
        "the factors of the normalisation are rounded into the weights",
        "on by default",
        f"{_PATTERNS}, ConvBatchnormFusionPass",
        _with_batch_norm,
    ),
    Fusion(
        "RealDiv2MulsFusionPass",
        "Div",
        "a float32 number of shape [] or [1] as divisor, greater than 1e-6",
        "Muls",
        "a product with the rounded reciprocal in place of a division: about one unit in the last place",
        "310P, 310B, 910 and A2",
        f"{_CODE}/realdiv_2_muls_fusion_pass.cc",
        _by_constant,
    ),
    Fusion(
        "MulAddFusionPass",
        "Mul, Add",
        "the name of the product contains bert",
        "FusedMulAdd",
        "one rounding less",
        "on by default",
        f"{_CODE}/mul_add_fusion_pass.cc",
        _named_bert,
    ),
)
