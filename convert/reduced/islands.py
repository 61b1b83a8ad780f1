"""The nodes of a graph that stay in float32, whatever the plan says.

Case 1: a node that does not depend on the images, such as the resampling of a position embedding: it costs
        nothing, and its result is rounded once.
Case 2: a LayerNorm that is spelled out: its square overflows in float16, and its epsilon is less than the
        least float16. The sum that it normalises stays in float32 too: AddLayerNormFusionPass of CANN would
        compute the norm of a sum in float16 in float16 (see docs/ascend.md).
Case 3: an operator that has no form in the narrow type in the opset of the graph, such as a convolution in
        bfloat16 before opset 22, or a ``Resize`` by factors, which are float32.
Case 4: a node that reads a constant of the graph with an element that becomes infinite in the type, or a
        number that becomes 0.
Case 5: in bfloat16, the norms, the sums that they normalise, and the softmaxes with what computes their
        logits, up to the product of queries and keys. bfloat16 has 8 bits: a logit of 50 is rounded by up to
        0.125, which its exponential multiplies. Engines with fused attention keep logits in float32 too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import onnx_ir as ir
from onnx import defs

from vconv.convert.graphs.layer_norms import layer_norms, normalisations
from vconv.convert.graphs.moves import ONNX_MOVES, readers
from vconv.convert.graphs.nodes import of_type, producer
from vconv.convert.reduced.products import PRODUCTS
from vconv.precisions import REDUCED_PRECISIONS

WIDE = ir.DataType.FLOAT
NARROW_TYPES = {
    name: ir.DataType[precision.onnx]
    for name, precision in REDUCED_PRECISIONS.items()
    if ir.DataType[precision.onnx].is_floating_point()
}
"""The narrow type of a graph that computes in floating point, by vconv's name of its precision."""
MOVES = (ONNX_MOVES - {"Cast"}) | {"Concat"}
"""Operators that take the type of what they move."""
_AROUND = frozenset({"LayerNormalization", "Softmax"})
"""Operators that cost little, and are the most sensitive ones."""
COUNTING = frozenset({"Shape", "Size"})
"""Operators whose result does not depend on values."""


def always_wide(model: ir.Model, dtype: ir.DataType) -> set[str]:
    """Return the names of the nodes that stay in float32 in every graph of a narrow type."""
    spelled_out = list(normalisations(model))
    found = {node.name for norm in spelled_out for node in norm.nodes}
    found |= {node.name for norm in spelled_out if (node := producer(norm.given, "Add")) is not None}
    found |= {node.name for node in _independent(model)}
    found |= {node.name for node in _with_lost_constants(model, dtype)}
    if dtype is ir.DataType.BFLOAT16:
        found |= around(model) | {node.name for node in _logits(model)}
    opset = model.opset_imports[""]
    found |= {node.name for node in model.graph if not _takes(node, dtype, opset)}
    return {name for name in found if name}


def wide_weights(model: ir.Model, dtype: ir.DataType, kept: Collection[str]) -> set[str]:
    """Return the names of the weights that a node in float32 reads, as they are or moved.

    Args:
        model: the graph in float32.
        dtype: the narrow type.
        kept: the names of the nodes that a plan keeps in float32.
    """
    stay = always_wide(model, dtype) | {*kept}
    return {
        name
        for name, value in model.graph.initializers.items()
        if any(node.name in stay for node in readers(value))
    }


def _with_lost_constants(model: ir.Model, dtype: ir.DataType) -> Iterator[ir.Node]:
    """Yield the nodes that read a constant that a type cannot hold: see case 4."""
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or isinstance(tensor, ir.ExternalTensor) or tensor.dtype != WIDE:
            continue
        exact = tensor.numpy()
        with np.errstate(over="ignore"):
            rounded = exact.astype(dtype.numpy()).astype(exact.dtype)
        vanishes = exact.size == 1 and bool(exact.any()) != bool(rounded.any())
        if vanishes or (np.isfinite(exact) != np.isfinite(rounded)).any():
            yield from readers(value)


def around(model: ir.Model) -> set[str]:
    """Return the names of the norms and softmaxes of a graph, and of the sums that are normalised.

    A sum in float16 whose norm is in float32 would be fused: see AddLayerNormFusionPass in docs/ascend.md.
    """
    found = [node for node in model.graph if node.op_type in _AROUND]
    found += [norm.nodes[0] for norm in layer_norms(model)]
    sums = (producer(node.inputs[0], "Add") for node in found if node.op_type != "Softmax")
    return {node.name for node in (*found, *sums) if node is not None and node.name}


def _logits(model: ir.Model) -> Iterator[ir.Node]:
    """Yield the softmaxes, and the nodes before each up to the product."""
    for softmax in of_type(model, "Softmax"):
        node: ir.Node | None = softmax
        while node is not None and node.inputs[0] is not None:
            yield node
            node = None if node.op_type in PRODUCTS else node.inputs[0].producer()


def _independent(model: ir.Model) -> Iterator[ir.Node]:
    """Yield the nodes that compute with numbers, and not with the images."""
    depends = set(model.graph.inputs)
    for node in model.graph:
        if node.op_type not in COUNTING and not depends.isdisjoint(filter(None, node.inputs)):
            depends.update(node.outputs)
        elif node.op_type not in MOVES | COUNTING:
            yield node


def _takes(node: ir.Node, dtype: ir.DataType, opset: int) -> bool:
    """Return whether an operator of an opset takes a type for every input of it that may be float32."""
    schema = defs.get_schema(node.op_type, opset)
    allowed = {one.type_param_str: one.allowed_type_strs for one in schema.type_constraints}
    given = zip(schema.inputs, node.inputs, strict=False)  # the last input may stand for many
    kinds = [allowed.get(one.type_str, [one.type_str]) for one, value in given if value is not None]
    return all(f"tensor({dtype.name.lower()})" in one for one in kinds if "tensor(float)" in one)
