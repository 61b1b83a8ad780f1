"""The pass that replaces the attention of a Swin transformer.

No published pass replaces the attention of a plain vision transformer. Those for BERT need a mask, and
sequences whose length is a multiple of 32.

Source: hiascend.com, "Graph Fusion and UB Fusion Patterns", SwinAttentionScoreFusionPass.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from vconv.convert.ascend.fusions.base import Effect, Fusion, Match
from vconv.convert.ascend.fusions.numbers import number
from vconv.convert.graphs.nodes import of_type, only_reader, producer

_BETWEEN = ("Add", "Reshape")
"""What may stand between the scores and the softmax: the sums with the bias and the mask, in two shapes."""


def _windows(model: ir.Model) -> Iterator[Match]:
    for softmax in of_type(model, "Softmax"):
        nodes: list[ir.Node] = []
        value = softmax.inputs[0]
        while (node := value.producer() if value is not None else None) and node.op_type in _BETWEEN:
            nodes.insert(0, node)
            value = next((one for one in node.inputs if one is not None and one.const_value is None), None)
        scores, product = producer(value, "MatMul"), only_reader(softmax, "MatMul")
        queries = producer(scores.inputs[0], "Mul") if scores is not None else None
        if not nodes or scores is None or queries is None or product is None:
            continue
        turned = only_reader(product, "Transpose")
        joined = only_reader(turned, "Reshape") if turned is not None else None
        if joined is None or turned is None or queries.inputs[0] is None:
            continue
        if any(number(one) is not None for one in queries.inputs):
            found = (queries, scores, *nodes, softmax, product, turned, joined)
            yield Match(found, queries.inputs[0], Effect.ROUNDING)


FUSIONS = (
    Fusion(
        "SwinAttentionScoreFusionPass",
        "Mul, MatMul, Add, [Reshape, Add, Reshape], Softmax, MatMul, Transpose, Reshape",
        "queries times a number; scores plus a bias",
        "SwinAttentionScore",
        "not documented; one kernel in place of several",
        "310P",
        "hiascend.com, Graph Fusion and UB Fusion Patterns, SwinAttentionScoreFusionPass",
        _windows,
    ),
)
