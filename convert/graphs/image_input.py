"""The part of a graph that turns uint8 images of any size into pixel values.

A resize is two matrix products with matrices that the graph makes from the image's height and width. The
operator ``Resize`` is not used: engines differ in its filters, and operator sets below 18 have no antialiased
form. The matrices hold the filter of Pillow (``ImagingResample``), which is also that of torch with
``antialias=True``: a filter widened by the scale when the image shrinks, cut off at the edges, and normalised
so that the weights of each pixel sum to 1. Only the rows and columns that the crop keeps are computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from vconv.convert.graphs.passes.resampling import KEYS_ANTIALIASED, Builder, keys
from vconv.convert.libraries.image_processing import Filter, ImageProcessing, Resize, Start
from vconv.types import BATCH_AXIS, CHANNELS, HEIGHT_AXIS, IMAGES, WIDTH_AXIS

GREATEST_IMAGE_SIDE = 16384
"""The greatest height or width of an image, in pixels: the length of the graph's table of whole numbers."""
PREFIX = "preprocessing_"
"""Prefix of the names of all nodes and constants of the preprocessing."""
_GREATEST_LEVEL = 255.0
Node = Callable[..., ir.Value]
"""Adds a node to a graph: see :meth:`.Builder.node`."""


def _bilinear(node: Node, distance: ir.Value) -> ir.Value:
    """Return max(1 - d, 0) for distances d of at least 0."""
    return node("Relu", node("Sub", 1.0, distance))


def _bicubic(node: Node, distance: ir.Value) -> ir.Value:
    """Return Keys' cubic convolution with his coefficient (1981, IEEE Trans. ASSP 29(6), 1153)."""
    return keys(node, distance, KEYS_ANTIALIASED)


def _lanczos(node: Node, distance: ir.Value) -> ir.Value:
    """Return sinc(d) sinc(d / 3) below 3 (Duchon, 1979, J. Appl. Meteor. 18(8), 1016)."""
    # At 0 the quotient would be 0 / 0; at this distance it is 1 within float32.
    apart = node("Max", distance, 1e-4)
    angle = node("Mul", apart, math.pi)
    first, second = (node("Div", node("Sin", x), x) for x in (angle, node("Div", angle, 3.0)))
    return node("Where", node("Less", apart, 3.0), node("Mul", first, second), 0.0)


_WEIGHTS: Mapping[Filter, Callable[[Node, ir.Value], ir.Value]] = {
    Filter.BILINEAR: _bilinear,
    Filter.BICUBIC: _bicubic,
    Filter.LANCZOS: _lanczos,
}
"""Filter -> the weight of a pixel by its distance, in pixels of the coarser of the two images."""


def _whole(*numbers: int) -> NDArray[np.int64]:
    return np.array(numbers, np.int64)


def _real(build: Builder, value: ir.Value) -> ir.Value:
    return build.node("Cast", value, to=int(ir.DataType.FLOAT))


@dataclass(frozen=True)
class _Axis:
    """One axis of an image.

    Args:
        length: its number of pixels, int64 (1,).
        resized: the number after the resize, int64 (1,).
        start: the first of the resized pixels that is kept, int64 (1,).
        kept: the number that is kept, int64 (1,).
    """

    length: ir.Value
    resized: ir.Value
    start: ir.Value
    kept: ir.Value


def _matrix(build: Builder, axis: _Axis, table: ir.Value, resize: Resize) -> ir.Value:
    """Return the matrix (kept, length) that resamples an axis.

    The centre of a pixel is a fraction of whole numbers. Its whole part is subtracted in whole numbers, so
    that float32 holds distances exactly enough for any length.
    """
    zero, one, two = _whole(0), _whole(1), _whole(2)
    rows = build.node("Add", build.node("Slice", table, zero, axis.kept), axis.start)
    odd = build.node("Add", build.node("Mul", rows, two), one)
    numerator = build.node("Sub", build.node("Mul", odd, axis.length), axis.resized)
    denominator = build.node("Mul", axis.resized, two)
    # The numerator can be negative, and ONNX does not say how Div rounds then: one is added and subtracted.
    whole = build.node("Sub", build.node("Div", build.node("Add", numerator, denominator), denominator), one)
    rest = build.node("Sub", numerator, build.node("Mul", whole, denominator))
    fraction = build.node("Div", _real(build, rest), _real(build, denominator))
    columns = build.node("Unsqueeze", build.node("Slice", table, zero, axis.length), _whole(0))
    steps = _real(build, build.node("Sub", columns, build.node("Unsqueeze", whole, _whole(1))))
    apart = build.node("Abs", build.node("Sub", steps, build.node("Unsqueeze", fraction, _whole(1))))
    scale = build.node("Div", _real(build, axis.length), _real(build, axis.resized))
    stretched = build.node("Div", apart, build.node("Max", scale, 1.0))
    weights = _WEIGHTS[resize.filter](build.node, stretched)
    return build.node("Div", weights, build.node("ReduceSum", weights, _whole(1), keepdims=1))


def _levels(build: Builder, image: ir.Value, whole: bool) -> ir.Value:
    """Round to whole grey levels, half up, and clip them, as PIL does after each pass."""
    if not whole:
        return image
    rounded = build.node("Floor", build.node("Add", image, 0.5))
    return build.node("Clip", rounded, 0.0, _GREATEST_LEVEL)


def _resized(build: Builder, sides: tuple[ir.Value, ir.Value], resize: Resize | None) -> list[ir.Value]:
    """Return the height and width after the resize, each int64 (1,)."""
    if resize is None:
        return list(sides)
    if isinstance(resize.sides, tuple):
        return [build.constant(_whole(side)) for side in resize.sides]
    shorter, wanted = build.node("Min", *sides), _whole(resize.sides)
    return [build.node("Div", build.node("Mul", wanted, side), shorter) for side in sides]


def _start(build: Builder, resized: ir.Value, kept: ir.Value, start: Start) -> ir.Value:
    """Return the first pixel of a crop of the centre, int64 (1,)."""
    left = build.node("Sub", resized, kept)
    half = build.node("Div", left, _whole(2))
    if start is Start.DOWN:
        return half
    odd, uneven = (build.node("Mod", value, _whole(2)) for value in (left, half))
    return build.node("Add", half, build.node("Mul", odd, uneven))


def pixel_values(build: Builder, images: ir.Value, steps: ImageProcessing) -> ir.Value:
    """Add the nodes that turn images into pixel values.

    Args:
        build: receives the nodes.
        images: uint8 (B, H, W, 3).
        steps: the steps of the image processor.

    Returns:
        float32 (B, 3, height, width), normalised.
    """
    image = build.node("Transpose", _real(build, images), perm=(0, 3, 1, 2))
    shape = build.node("Shape", images)
    height, width = (build.node("Slice", shape, _whole(place), _whole(place + 1)) for place in (1, 2))
    resized = _resized(build, (height, width), steps.resize)
    kept = [build.constant(_whole(side)) for side in steps.crop] if steps.crop else resized
    starts = [_start(build, new, part, steps.start) for new, part in zip(resized, kept, strict=True)]
    rows, columns = (_Axis(*values) for values in zip((height, width), resized, starts, kept, strict=True))
    if steps.resize:
        table = build.constant(np.arange(GREATEST_IMAGE_SIDE))
        across = build.node("Transpose", _matrix(build, columns, table, steps.resize), perm=(1, 0))
        image = _levels(build, build.node("MatMul", image, across), steps.resize.whole_levels)
        down = _matrix(build, rows, table, steps.resize)
        image = _levels(build, build.node("MatMul", down, image), steps.resize.whole_levels)
    elif steps.crop:
        first = build.node("Concat", *starts, axis=0)
        last = build.node(
            "Concat", *(build.node("Add", a, b) for a, b in zip(starts, kept, strict=True)), axis=0
        )
        image = build.node("Slice", image, first, last, _whole(2, 3))
    shares = build.node("Mul", image, steps.factor)
    per_channel = (1, CHANNELS, 1, 1)
    mean, std = (np.reshape(np.array(given, np.float32), per_channel) for given in (steps.mean, steps.std))
    return build.node("Div", build.node("Sub", shares, mean), std)


def take_images(model: ir.Model, steps: ImageProcessing) -> None:
    """Put the preprocessing in front of a graph that takes pixel values, in place.

    Args:
        model: a graph with one input, float32 (B, 3, H, W), whose batch is symbolic.
        steps: the steps of the image processor.
    """
    graph = model.graph
    (before,) = graph.inputs
    build = Builder(graph, PREFIX.rstrip("_"))
    axes = (BATCH_AXIS, HEIGHT_AXIS, WIDTH_AXIS)
    images = ir.Value(
        name=IMAGES,
        shape=ir.Shape([*axes, CHANNELS]),
        type=ir.TensorType(ir.DataType.UINT8),
    )
    made = pixel_values(build, images, steps)
    made.name, made.shape, made.type = before.name, before.shape, before.type
    ir.convenience.replace_all_uses_with(before, made)
    graph.inputs[:] = [images]
    first = graph[0]
    graph.insert_before(first, build.nodes)
