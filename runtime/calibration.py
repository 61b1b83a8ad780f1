"""The ranges of the values of a graph on images, from which plans of reduced precision are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from vconv.runtime.devices.base import Device
from vconv.runtime.engines.onnxruntime import piece_of_session
from vconv.runtime.engines.runnable import read_graph
from vconv.types import INPUT, Array, Arrays

_ENDS = {"ReduceMin": "_least_seen", "ReduceMax": "_greatest_seen"}
_CHANNEL_ENDS = {"ReduceMin": "_least_of_channels_seen", "ReduceMax": "_greatest_of_channels_seen"}
"""By operator: the ends of the names of the values that are added to a graph."""
_JOINS = {"ReduceMin": np.minimum, "ReduceMax": np.maximum}
_FLOAT = TensorProto.FLOAT


@dataclass(frozen=True)
class Seen:
    """What a value was on the images.

    Args:
        least: the least element.
        greatest: the greatest element.
        channels: the least and the greatest element of each channel, the last axis, float32 (2, C); None if
            they were not asked for.
    """

    least: float
    greatest: float
    channels: Array | None = None

    @property
    def magnitude(self) -> float:
        """The greatest magnitude; NaN if one of the ends is NaN."""
        return float(np.max(np.abs([self.least, self.greatest])))


def observe(
    graph: Path, images: Sequence[Array], device: Device, channels: Sequence[str] = (), batch: int = 1
) -> dict[str, Seen]:
    """Run a graph on images, and return the range of every float32 value that it computes.

    The graph itself finds the least and the greatest element, so that no other value is kept.

    Args:
        graph: a graph in float32, with its weights beside it.
        images: arrays of images, each of one size: float32 (N, 3, H, W), N a multiple of ``batch``.
        device: the CPU.
        channels: the names of the values whose channels are measured too.
        batch: the number of images that the graph takes.
    """
    model = read_graph(graph)
    ranks = _ranks(model)
    names = [name for node in model.graph.node for name in node.output if name in ranks]
    joins: dict[str, Callable[[Array, Array], Array]] = {}
    for operator, join in _JOINS.items():
        for name in names:
            joins[name + _ENDS[operator]] = join
            made = helper.make_node(operator, [name], [name + _ENDS[operator]], keepdims=0)
            model.graph.node.append(made)
        for name in channels:
            joins[name + _CHANNEL_ENDS[operator]] = join
            model.graph.node.append(_by_channel(model, operator, name, ranks[name]))
    model.graph.output.extend(helper.make_tensor_value_info(name, _FLOAT, None) for name in joins)
    run = piece_of_session(model, graph.parent, list(joins), device)
    found: dict[str, Array] = {}
    for pixel_values in images:
        for start in range(0, len(pixel_values), batch):
            for name, value in run({INPUT: pixel_values[start : start + batch]}).items():
                found[name] = joins[name](found[name], value) if name in found else value.copy()
    return {name: _seen(found, name) for name in names}


def _seen(found: Arrays, name: str) -> Seen:
    least, greatest = (float(found[name + end]) for end in _ENDS.values())
    channels = [found[name + end] for end in _CHANNEL_ENDS.values() if name + end in found]
    return Seen(least, greatest, np.stack(channels) if channels else None)


def _ranks(model: onnx.ModelProto) -> Mapping[str, int]:
    """Return the number of axes of each float32 value."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.output)
    return {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in values
        if value.type.tensor_type.elem_type == _FLOAT and value.type.tensor_type.HasField("shape")
    }


def _by_channel(model: onnx.ModelProto, operator: str, name: str, rank: int) -> onnx.NodeProto:
    """Return a node that reduces every axis of a value but the last."""
    opset = next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))
    given, axes = name + _CHANNEL_ENDS[operator], list(range(rank - 1))
    if opset < 18:  # axes became an input
        return helper.make_node(operator, [name], [given], axes=axes, keepdims=0)
    constant = helper.make_tensor(f"{given}_axes", TensorProto.INT64, [len(axes)], axes)
    model.graph.initializer.append(constant)
    return helper.make_node(operator, [name, constant.name], [given], keepdims=0)
