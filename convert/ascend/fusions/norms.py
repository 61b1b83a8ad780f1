"""The passes that replace a LayerNorm, and those around one.

Sources: canndev, ``layer_norm_onnx_fusion_pass.cc`` (2019 to 2022); hiascend.com, "Graph Fusion and UB Fusion
Patterns", AddLayerNormFusionPass; hicann/ops-nn, ``norm/layer_norm/docs/LayerNormONNXFusionPass.md`` (2026).
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from vconv.convert.ascend.fusions.base import Effect, Fusion, Match
from vconv.convert.ascend.fusions.numbers import number
from vconv.convert.graphs.layer_norms import NORM, Normalisation, normalisations
from vconv.convert.graphs.nodes import of_type, only_reader, producer, read_once

GREATEST_EPSILON = 0.1
_NARROW = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def _spelled_out(model: ir.Model) -> Iterator[Match]:
    for found in normalisations(model):
        if _is_fused(found):
            affine = _affine(found.divided)
            # The source of 2022 writes the scale that is missing as the float16 number of the bits 1.
            wrong = not affine and found.divided.outputs[0].dtype is ir.DataType.FLOAT16
            nodes = (*found.nodes, *affine)
            yield Match(nodes, found.given, Effect.RESULT if wrong else Effect.ROUNDING)


def _is_fused(found: Normalisation) -> bool:
    """Return whether the pass takes a LayerNorm that is spelled out."""
    epsilon, inner = number(found.small), (*found.nodes[:1], *found.nodes[2:-1])
    return (
        found.square.op_type == "Pow"
        and number(found.square.inputs[1]) == 2
        and epsilon is not None
        and epsilon <= GREATEST_EPSILON
        and bool(found.mean.attributes.get_int("keepdims", 1))
        and all(map(read_once, inner))
        and len(found.centred.outputs[0].uses()) == 2
    )


def _affine(divided: ir.Node) -> tuple[ir.Node, ...]:
    """Return the product and the sum with constant rows after a normalisation; empty without both."""
    scaled = only_reader(divided, "Mul")
    shifted = only_reader(scaled, "Add") if scaled is not None and _is_row(scaled.inputs[1]) else None
    if scaled is None or shifted is None or not _is_row(shifted.inputs[1]):
        return ()
    return scaled, shifted


def _is_row(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is not None and len(value.const_value.shape) == 1


def _with_sum(model: ir.Model) -> Iterator[Match]:
    # The pass above runs first, so that a LayerNorm that it fuses counts as one operator.
    fused = [(match.operand, match.nodes) for match in _spelled_out(model)]
    for given, nodes in [*((node.inputs[0], (node,)) for node in of_type(model, NORM)), *fused]:
        cast = producer(given, "Cast")
        summed = producer(cast.inputs[0], "Add") if cast is not None else None
        if cast is None or summed is None or given is None or summed.outputs[0].dtype not in _NARROW:
            continue
        if given.dtype is ir.DataType.FLOAT or cast.attributes.get_int("to", 0) == ir.DataType.FLOAT:
            yield Match((summed, cast, *nodes), given, Effect.PRECISION)


FUSIONS = (
    Fusion(
        "LayerNormONNXFusionPass",
        "ReduceMean, Sub, [Cast], Pow, ReduceMean, Add, Sqrt, Div, [Mul, Add]",
        "power of 2; epsilon at most 0.1; what Sub gives is read twice, all else once",
        "LayerNorm",
        "the same formula; sums are rounded in another order. By the source of 2022, a float16 norm without "
        "scale and bias is multiplied by 6e-8",
        "on by default; seen to fire on a 310P",
        "canndev, fusion_pass/graph_fusion/ai_core/layer_norm_onnx_fusion_pass.cc; hicann/ops-nn, "
        "norm/layer_norm/docs/LayerNormONNXFusionPass.md",
        _spelled_out,
    ),
    Fusion(
        "AddLayerNormFusionPass",
        "Add, Cast, LayerNormalization",
        "the sum is float16 or bfloat16, and the cast widens it to float32",
        "AddLayerNorm",
        "the norm gives float16 or bfloat16 in place of float32",
        "A2 and 950",
        "hiascend.com, Graph Fusion and UB Fusion Patterns, AddLayerNormFusionPass",
        _with_sum,
        off=True,
    ),
)
