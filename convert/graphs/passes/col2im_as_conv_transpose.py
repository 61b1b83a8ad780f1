"""Replace every ``Col2Im`` by a ``ConvTranspose`` with a constant weight, which NPU compilers know.

``Col2Im`` adds up the columns of an image's windows, as ``torch.nn.functional.fold`` does. A transposed
convolution does the same, if each element of a column is a channel whose kernel is 1 at its own place and 0
elsewhere; the channels of the image become images of the batch.

Case 1: a ``Col2Im`` of images with two sides, with constant sizes and a known number of channels: replaced.
Case 2: any other ``Col2Im``: it stays, and the check of the operators of the NPU graph names it.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from vconv.convert.graphs.passes.base import Pass
from vconv.convert.graphs.passes.resampling import Builder

_SIDES = 2


def col2im_as_conv_transpose(graph: ir.Graph) -> int:
    """Replace every ``Col2Im`` of case 1, in place; return how many there were."""
    found = [node for node in graph if node.op_type == "Col2Im" and _known(node)]
    for number, node in enumerate(found):
        build, output = Builder(graph, f"col2im_{number}"), node.outputs[0]
        image, block = (_constant(node.inputs[place]) for place in (1, 2))
        strides, dilations = (_option(node, name, (1, 1)) for name in ("strides", "dilations"))
        pads = _option(node, "pads", (0, 0, 0, 0))
        reach = [dilations[side] * (block[side] - 1) + 1 for side in range(_SIDES)]
        padded = [image[side] + pads[side] + pads[side + _SIDES] for side in range(_SIDES)]
        windows = [(padded[side] - reach[side]) // strides[side] + 1 for side in range(_SIDES)]
        left = [(padded[side] - reach[side]) % strides[side] for side in range(_SIDES)]
        elements = math.prod(block)
        channels = int(node.inputs[0].shape[1]) // elements  # type: ignore[index, union-attr, arg-type]
        assert node.inputs[0] is not None
        columns = build.node("Reshape", node.inputs[0], np.array([-1, elements, *windows]))
        places = np.eye(elements, dtype=np.float32).reshape(elements, 1, *block)
        added = build.node(
            "ConvTranspose", columns, places,
            strides=strides, dilations=dilations, pads=pads, output_padding=tuple(left),
        )  # fmt: skip
        made = build.node("Reshape", added, np.array([-1, channels, *image]))
        made.name, made.shape, made.type = output.name, output.shape, output.type
        ir.convenience.replace_nodes_and_values(graph, node, [node], build.nodes, [output], [made])
    return len(found)


def _known(node: ir.Node) -> bool:
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    sizes = [_constant(node.inputs[place]) for place in (1, 2)]
    return shape is not None and isinstance(shape[1], int) and all(len(size) == _SIDES for size in sizes)


def _constant(value: ir.Value | None) -> tuple[int, ...]:
    """Return the numbers of a constant; none if the value is not constant."""
    constant = value.const_value if value is not None else None
    return tuple(map(int, constant.numpy().reshape(-1))) if constant is not None else ()


def _option(node: ir.Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    attribute = node.attributes.get(name)
    return tuple(attribute.as_ints()) if attribute is not None else default


PASS = Pass("col2im-as-conv-transpose", lambda model, context: col2im_as_conv_transpose(model.graph) > 0)
