"""How an operator is written in an older form: one row for each version that changed it.

What a version changed is read from ONNX's own schemas (``onnx.defs``, and the changelog of operators at
https://onnx.ai/onnx/operators/). What a row cannot write is refused, because the numbers would change. Every
operator that these functions write has had its form since opset 13 at least.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from vconv.convert.graphs.passes.resampling import Builder

_NARROW = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
"""Types that are widened to float32 where sums are computed."""


class NoOlderForm(Exception):
    """A node has no older form. The text says why: a verb, whose subject is the node, and the rest."""


Rewrite = Callable[[ir.Node, Builder], ir.Value | Sequence[ir.Value] | None]
"""Builds the older form of a node, and returns what stands for its outputs.

None means that the node itself has the older form, now that its new attributes are removed. It raises
:class:`NoOlderForm`.
"""


def _itself(node: ir.Node, build: Builder) -> None:
    """The older form computes the same; it only takes fewer types, or has fewer attributes."""


def _layer_normalization(node: ir.Node, build: Builder) -> ir.Value:
    """Spell a LayerNorm out, in float32: (x - mean) / sqrt(variance + epsilon) * scale + bias.

    The variance is the mean of the squared differences, as in the formula of ONNX's operator, and not the
    difference of two means, which loses digits where the mean is large.
    """
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        raise NoOlderForm("returns the mean or the deviation too")
    x, scale, bias = (*node.inputs, None)[:3]
    assert x is not None and scale is not None
    if x.dtype not in (ir.DataType.FLOAT, *_NARROW, None):
        raise NoOlderForm(f"computes in {x.dtype}")
    axis = node.attributes.get_int("axis", -1)
    axes = tuple(range(axis, 0)) if axis < 0 else tuple(range(axis, _rank(node)))
    narrow = x.dtype if x.dtype in _NARROW else None
    wide = build.node("Cast", x, to=ir.DataType.FLOAT.value) if narrow else x
    differences = build.node("Sub", wide, build.node("ReduceMean", wide, axes=axes, keepdims=1))
    squares = build.node("Pow", differences, 2.0)  # CANN fuses a LayerNorm with this square alone
    variance = build.node("ReduceMean", squares, axes=axes, keepdims=1)
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    deviation = build.node("Sqrt", build.node("Add", variance, epsilon))
    normal = build.node("Div", differences, deviation)
    if narrow:
        normal = build.node("Cast", normal, to=narrow.value)
    scaled = build.node("Mul", normal, scale)
    return scaled if bias is None else build.node("Add", scaled, bias)


def _hard_swish(node: ir.Node, build: Builder) -> ir.Value:
    """Write x * max(0, min(1, x / 6 + 1/2)), which is ONNX's own formula."""
    return build.node("Mul", node.inputs[0], build.node("HardSigmoid", node.inputs[0], alpha=1 / 6, beta=0.5))


def _mish(node: ir.Node, build: Builder) -> ir.Value:
    """Write x * tanh(log(1 + e^x)), which is ONNX's own formula."""
    return build.node("Mul", node.inputs[0], build.node("Tanh", build.node("Softplus", node.inputs[0])))


def _cast_like(node: ir.Node, build: Builder) -> ir.Value:
    target = node.inputs[1].dtype if node.inputs[1] is not None else None
    if target is None:
        raise NoOlderForm("casts to a type that the graph does not declare")
    return build.node("Cast", node.inputs[0], to=target.value)


def _shape(node: ir.Node, build: Builder) -> ir.Value | None:
    if not node.attributes.keys() & {"start", "end"}:
        return None
    start = node.attributes.get_int("start", 0)
    end = node.attributes.get_int("end", np.iinfo(np.int64).max)
    whole = build.node("Shape", node.inputs[0])
    return build.node("Slice", whole, np.array([start]), np.array([end]))


def _split(node: ir.Node, build: Builder) -> Sequence[ir.Value] | None:
    """Name the length of every part; the last of ``num_outputs`` may be shorter than the others."""
    if "num_outputs" not in node.attributes:
        return None
    count, axis = len(node.outputs), node.attributes.get_int("axis", 0)
    length = _shape_of(node)[axis]
    if not isinstance(length, int):
        raise NoOlderForm("divides an axis of unknown length")
    part = -(-length // count)
    parts = np.array([part] * (count - 1) + [length - part * (count - 1)])
    return build.several("Split", count, node.inputs[0], parts, axis=axis)


def _reduction(node: ir.Node, build: Builder) -> ir.Value:
    """Write the axes in an attribute, as all reductions but ``ReduceSum`` have them before opset 18."""
    axes = _numbers(node, 1, "has axes that the graph computes")
    keepdims = node.attributes.get_int("keepdims", 1)
    none: int = node.attributes.get_int("noop_with_empty_axes", 0)
    if none and not axes:
        if node.op_type not in _WITHOUT_STEPS:
            raise NoOlderForm("reduces no axis")
        return build.node("Identity", node.inputs[0])
    if not axes:
        return build.node(node.op_type, node.inputs[0], keepdims=keepdims)
    return build.node(node.op_type, node.inputs[0], axes=tuple(axes), keepdims=keepdims)


def _pad(node: ir.Node, build: Builder) -> ir.Value | None:
    """Write a border for every axis, and not only for those that are named."""
    axes = _numbers(node, 3, "has axes that the graph computes")
    if axes is None:
        return None
    widths, rank = _numbers(node, 1, "has a border that the graph computes"), _rank(node)
    assert widths is not None
    every = np.zeros((2, rank), np.int64)
    every[:, [axis % rank for axis in axes]] = np.reshape(widths, (2, -1))
    mode = node.attributes.get_string("mode", "constant")
    return build.node("Pad", node.inputs[0], every.reshape(-1), *node.inputs[2:3], mode=mode)


def _scatter(node: ir.Node, build: Builder) -> None:
    """Opset 18 adds the reductions max and min, and no attribute."""
    reduction = node.attributes.get_string("reduction", "none")
    if reduction in ("max", "min"):
        raise NoOlderForm(f"has the reduction {reduction}")


def _reshape(node: ir.Node, build: Builder) -> None:
    """Before opset 14, 0 always means the old length; with ``allowzero``, it makes an empty tensor."""
    if node.attributes.get_int("allowzero", 0):
        asked = ir.convenience.get_const_tensor(node.inputs[1]) if node.inputs[1] is not None else None
        made = node.outputs[0].shape
        if 0 in (made or ()) or (asked is not None and 0 in asked.numpy()):
            raise NoOlderForm("makes an empty tensor")
        if asked is None and made is None:
            raise NoOlderForm("may make an empty tensor")
        del node.attributes["allowzero"]


def _shape_of(node: ir.Node) -> ir.Shape:
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if shape is None:
        raise NoOlderForm("takes a tensor of unknown shape")
    return shape


def _rank(node: ir.Node) -> int:
    return len(_shape_of(node))


def _numbers(node: ir.Node, place: int, otherwise: str) -> list[int] | None:
    """Return the whole numbers of a constant input; None if there is no such input."""
    value = node.inputs[place] if place < len(node.inputs) else None
    if value is None:
        return None
    constant = ir.convenience.get_const_tensor(value)
    if constant is None:
        raise NoOlderForm(otherwise)
    return [int(number) for number in constant.numpy().reshape(-1)]


_SAME = (
    *(("Add", 14), ("Sub", 14), ("Mul", 14), ("Div", 14), ("Pow", 15), ("Relu", 14), ("CumSum", 14)),
    *(("Identity", 16), ("Identity", 14), ("Where", 16), ("GreaterOrEqual", 16), ("LessOrEqual", 16)),
    *(("LeakyRelu", 16), ("PRelu", 16), ("BatchNormalization", 15), ("BatchNormalization", 14)),
    *(("GRU", 14), ("LSTM", 14), ("RNN", 14), ("Resize", 18), ("ScatterND", 16), ("ScatterElements", 16)),
)
"""Versions that only added types, or attributes whose default is what the operator did before."""
_REDUCTIONS = (
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"),
    *("ReduceProd", "ReduceSumSquare"),
)

_WITHOUT_STEPS = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd")
"""Reductions that give back what they take if they reduce no axis; the others square it, for example."""

OLDER_FORMS: Mapping[tuple[str, int], Rewrite] = {
    **dict.fromkeys(_SAME, _itself),
    **{(name, 18): _reduction for name in _REDUCTIONS},
    ("Split", 18): _split,
    ("Pad", 18): _pad,
    ("ScatterND", 18): _scatter,
    ("ScatterElements", 18): _scatter,
    ("Mish", 18): _mish,
    ("LayerNormalization", 17): _layer_normalization,
    ("Shape", 15): _shape,
    ("CastLike", 15): _cast_like,
    ("HardSwish", 14): _hard_swish,
    ("Reshape", 14): _reshape,
}
"""Operator, and the opset at which a form of it begins -> how to write the form before that one."""
