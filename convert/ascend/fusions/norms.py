"""The passes that replace a LayerNorm, and those around one.

Sources: canndev, ``layer_norm_onnx_fusion_pass.cc`` (2019 to 2022); hiascend.com, "Graph Fusion and UB Fusion
Patterns", AddLayerNormFusionPass; hicann/ops-nn, ``norm/layer_norm/docs/LayerNormONNXFusionPass.md`` (2026).
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from vconv.convert.ascend.fusions.base import Effect, Fusion, Match
from vconv.convert.ascend.fusions.nodes import number, of_type, only_reader, producer, read_once

GREATEST_EPSILON = 0.1
_NARROW = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def _spelled_out(model: ir.Model) -> Iterator[Match]:
    for root in of_type(model, "Sqrt"):
        nodes = _layer_norm(root)
        if nodes and nodes[0].inputs[0] is not None:
            yield Match(nodes, nodes[0].inputs[0], Effect.ROUNDING)


def _layer_norm(root: ir.Node) -> tuple[ir.Node, ...] | None:
    """Return the nodes around the ``Sqrt`` of a LayerNorm, from the mean to the affine part."""
    added = producer(root.inputs[0], "Add")
    epsilons = [one for value in (added.inputs if added else ()) if (one := number(value)) is not None]
    if added is None or not read_once(added) or len(epsilons) != 1 or epsilons[0] > GREATEST_EPSILON:
        return None
    variance = next((found for value in added.inputs if (found := producer(value, "ReduceMean"))), None)
    power = producer(variance.inputs[0], "Pow") if variance is not None and read_once(variance) else None
    if variance is None or power is None or not read_once(power) or number(power.inputs[1]) != 2:
        return None
    cast = producer(power.inputs[0], "Cast")
    centred = producer(cast.inputs[0] if cast is not None else power.inputs[0], "Sub")
    if centred is None or len(centred.outputs[0].uses()) != 2:
        return None
    mean, divided = producer(centred.inputs[1], "ReduceMean"), only_reader(root, "Div")
    if mean is None or divided is None or divided.inputs[0] is not centred.outputs[0]:
        return None
    if mean.inputs[0] is not centred.inputs[0] or not mean.attributes.get_int("keepdims", 1):
        return None
    nodes = (mean, centred, *([cast] if cast else []), power, variance, added, root, divided)
    return (*nodes, *_affine(divided))


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
    for norm in of_type(model, "LayerNormalization"):
        cast = producer(norm.inputs[0], "Cast")
        summed = producer(cast.inputs[0], "Add") if cast is not None else None
        if cast is None or summed is None or norm.inputs[0] is None or summed.outputs[0].dtype not in _NARROW:
            continue
        if norm.inputs[0].dtype is ir.DataType.FLOAT or cast.attributes.get_int("to", 0) == ir.DataType.FLOAT:
            yield Match((summed, cast, norm), norm.inputs[0], Effect.PRECISION)


FUSIONS = (
    Fusion(
        "LayerNormONNXFusionPass",
        "ReduceMean, Sub, [Cast], Pow, ReduceMean, Add, Sqrt, Div, [Mul, Add]",
        "power of 2; epsilon at most 0.1; what Sub gives is read twice, all else once",
        "LayerNorm",
        "the same formula; sums are rounded in another order",
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
        Effect.PRECISION,
    ),
)
