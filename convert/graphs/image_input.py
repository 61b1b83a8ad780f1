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
from numpy.typing import ArrayLike

from vconv.convert.libraries.image_processing import Filter, ImageProcessing, Resize, Start
from vconv.types import BATCH_AXIS, CHANNELS, HEIGHT_AXIS, IMAGES, WIDTH_AXIS

GREATEST_IMAGE_SIDE = 16384
"""The greatest height or width of an image, in pixels: the length of the graph's table of whole numbers."""
PREFIX = "preprocessing_"
"""Prefix of the names of all nodes and constants of the preprocessing."""
_GREATEST_LEVEL = 255.0


class Builder:
    """Adds nodes to a list, with one method for each kind of value that the preprocessing needs."""

    def __init__(self) -> None:
        self.nodes: list[ir.Node] = []
        self.constants: list[ir.Value] = []

    def constant(self, values: ArrayLike, dtype: type[np.generic] = np.float32) -> ir.Value:
        """Add a constant."""
        array = np.array(values, dtype)
        name = f"{PREFIX}constant_{len(self.constants)}"
        value = ir.Value(
            name=name,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            const_value=ir.tensor(array, name=name),
        )
        self.constants.append(value)
        return value

    def whole(self, *numbers: int) -> ir.Value:
        """Add a constant of whole numbers, int64 (N,)."""
        return self.constant(numbers, np.int64)

    def __call__(self, operator: str, *inputs: ir.Value, **attributes: int | list[int]) -> ir.Value:
        """Add a node of one output."""
        node = ir.node(operator, list(inputs), dict(attributes) or None)
        node.name = node.outputs[0].name = f"{PREFIX}{len(self.nodes)}_{operator.lower()}"
        self.nodes.append(node)
        return node.outputs[0]

    def real(self, value: ir.Value) -> ir.Value:
        """Convert to float32."""
        return self("Cast", value, to=int(ir.DataType.FLOAT))


def _bilinear(make: Builder, distance: ir.Value) -> ir.Value:
    """Return max(1 - d, 0) for distances d of at least 0."""
    return make("Relu", make("Sub", make.constant(1.0), distance))


def _polynomial(make: Builder, x: ir.Value, *coefficients: float) -> ir.Value:
    """Return a polynomial by Horner's rule, the highest power first."""
    total = make.constant(coefficients[0])
    for coefficient in coefficients[1:]:
        total = make("Add", make("Mul", total, x), make.constant(coefficient))
    return total


def _bicubic(make: Builder, distance: ir.Value) -> ir.Value:
    """Return Keys' cubic convolution with the coefficient -1/2 (1981, IEEE Trans. ASSP 29(6), 1153)."""
    near = _polynomial(make, distance, 1.5, -2.5, 0.0, 1.0)
    far = _polynomial(make, distance, -0.5, 2.5, -4.0, 2.0)
    outside = make("Where", make("Less", distance, make.constant(2.0)), far, make.constant(0.0))
    return make("Where", make("Less", distance, make.constant(1.0)), near, outside)


def _lanczos(make: Builder, distance: ir.Value) -> ir.Value:
    """Return sinc(d) sinc(d / 3) below 3 (Duchon, 1979, J. Appl. Meteor. 18(8), 1016)."""
    # At 0 the quotient would be 0 / 0; at this distance it is 1 within float32.
    apart = make("Max", distance, make.constant(1e-4))
    angle = make("Mul", apart, make.constant(math.pi))
    third = make("Div", angle, make.constant(3.0))
    first, second = (make("Div", make("Sin", x), x) for x in (angle, third))
    product = make("Mul", first, second)
    return make("Where", make("Less", apart, make.constant(3.0)), product, make.constant(0.0))


_WEIGHTS: Mapping[Filter, Callable[[Builder, ir.Value], ir.Value]] = {
    Filter.BILINEAR: _bilinear,
    Filter.BICUBIC: _bicubic,
    Filter.LANCZOS: _lanczos,
}
"""Filter -> the weight of a pixel by its distance, in pixels of the coarser of the two images."""


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


def _matrix(make: Builder, axis: _Axis, table: ir.Value, resize: Resize) -> ir.Value:
    """Return the matrix (kept, length) that resamples an axis.

    The centre of a pixel is a fraction of whole numbers. Its whole part is subtracted in whole numbers, so
    that float32 holds distances exactly enough for any length.
    """
    zero, one, two = make.whole(0), make.whole(1), make.whole(2)
    rows = make("Add", make("Slice", table, zero, axis.kept), axis.start)
    odd = make("Add", make("Mul", rows, two), one)
    numerator = make("Sub", make("Mul", odd, axis.length), axis.resized)
    denominator = make("Mul", axis.resized, two)
    # The numerator can be negative, and ONNX does not say how Div rounds then: one is added and subtracted.
    whole = make("Sub", make("Div", make("Add", numerator, denominator), denominator), one)
    rest = make("Sub", numerator, make("Mul", whole, denominator))
    fraction = make("Div", make.real(rest), make.real(denominator))
    columns = make("Unsqueeze", make("Slice", table, zero, axis.length), make.whole(0))
    steps = make.real(make("Sub", columns, make("Unsqueeze", whole, make.whole(1))))
    apart = make("Abs", make("Sub", steps, make("Unsqueeze", fraction, make.whole(1))))
    scale = make("Div", make.real(axis.length), make.real(axis.resized))
    stretched = make("Div", apart, make("Max", scale, make.constant(1.0)))
    weights = _WEIGHTS[resize.filter](make, stretched)
    return make("Div", weights, make("ReduceSum", weights, make.whole(1), keepdims=1))


def _levels(make: Builder, image: ir.Value, whole: bool) -> ir.Value:
    """Round to whole grey levels, half up, and clip them, as PIL does after each pass."""
    if not whole:
        return image
    rounded = make("Floor", make("Add", image, make.constant(0.5)))
    return make("Clip", rounded, make.constant(0.0), make.constant(_GREATEST_LEVEL))


def _resized(make: Builder, sides: tuple[ir.Value, ir.Value], resize: Resize | None) -> list[ir.Value]:
    """Return the height and width after the resize, each int64 (1,)."""
    if resize is None:
        return list(sides)
    if isinstance(resize.sides, tuple):
        return [make.whole(side) for side in resize.sides]
    shorter, wanted = make("Min", *sides), make.whole(resize.sides)
    return [make("Div", make("Mul", wanted, side), shorter) for side in sides]


def _start(make: Builder, resized: ir.Value, kept: ir.Value, start: Start) -> ir.Value:
    """Return the first pixel of a crop of the centre, int64 (1,)."""
    left = make("Sub", resized, kept)
    half = make("Div", left, make.whole(2))
    if start is Start.DOWN:
        return half
    odd, uneven = (make("Mod", value, make.whole(2)) for value in (left, half))
    return make("Add", half, make("Mul", odd, uneven))


def pixel_values(make: Builder, images: ir.Value, steps: ImageProcessing) -> ir.Value:
    """Add the nodes that turn images into pixel values.

    Args:
        make: receives the nodes.
        images: uint8 (B, H, W, 3).
        steps: the steps of the image processor.

    Returns:
        float32 (B, 3, height, width), normalised.
    """
    image = make("Transpose", make.real(images), perm=[0, 3, 1, 2])
    shape = make("Shape", images)
    height, width = (make("Slice", shape, make.whole(place), make.whole(place + 1)) for place in (1, 2))
    resized = _resized(make, (height, width), steps.resize)
    kept = [make.whole(side) for side in steps.crop] if steps.crop else resized
    starts = [_start(make, new, part, steps.start) for new, part in zip(resized, kept, strict=True)]
    rows, columns = (_Axis(*values) for values in zip((height, width), resized, starts, kept, strict=True))
    if steps.resize:
        table = make.constant(np.arange(GREATEST_IMAGE_SIDE), np.int64)
        across = make("Transpose", _matrix(make, columns, table, steps.resize), perm=[1, 0])
        image = _levels(make, make("MatMul", image, across), steps.resize.whole_levels)
        down = _matrix(make, rows, table, steps.resize)
        image = _levels(make, make("MatMul", down, image), steps.resize.whole_levels)
    elif steps.crop:
        first = make("Concat", *starts, axis=0)
        last = make("Concat", *(make("Add", a, b) for a, b in zip(starts, kept, strict=True)), axis=0)
        image = make("Slice", image, first, last, make.whole(2, 3))
    shares = make("Mul", image, make.constant(steps.factor))
    per_channel = (1, CHANNELS, 1, 1)
    mean, std = (make.constant(np.reshape(given, per_channel)) for given in (steps.mean, steps.std))
    return make("Div", make("Sub", shares, mean), std)


def take_images(model: ir.Model, steps: ImageProcessing) -> None:
    """Put the preprocessing in front of a graph that takes pixel values, in place.

    Args:
        model: a graph with one input, float32 (B, 3, H, W), whose batch is symbolic.
        steps: the steps of the image processor.
    """
    graph = model.graph
    (before,) = graph.inputs
    make = Builder()
    axes = (BATCH_AXIS, HEIGHT_AXIS, WIDTH_AXIS)
    images = ir.Value(
        name=IMAGES,
        shape=ir.Shape([*axes, CHANNELS]),
        type=ir.TensorType(ir.DataType.UINT8),
    )
    made = pixel_values(make, images, steps)
    made.name, made.shape, made.type = before.name, before.shape, before.type
    ir.convenience.replace_all_uses_with(before, made)
    graph.inputs[:] = [images]
    for constant in make.constants:
        graph.register_initializer(constant)
    first = graph[0]
    graph.insert_before(first, make.nodes)
