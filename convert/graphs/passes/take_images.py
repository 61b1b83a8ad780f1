"""Put the preprocessing in front of a graph, so that it takes uint8 images of any size.

Case 1: a graph that takes pixel values with a symbolic batch: it takes images instead, and its former input
        is computed from them. See :mod:`vconv.convert.graphs.image_input`.
"""

from __future__ import annotations

import onnx_ir as ir

from vconv.convert.graphs.image_input import take_images
from vconv.convert.graphs.passes.base import Condition, Pass, PassContext
from vconv.types import IMAGES, INPUT


def _run(model: ir.Model, context: PassContext) -> bool:
    assert context.image_processing is not None
    take_images(model, context.image_processing)
    return True


def _without_steps(model: ir.Model, context: PassContext) -> str:
    return "the context has no image processing" if context.image_processing is None else ""


def _other_input(name: str) -> Condition:
    def wrong(model: ir.Model, context: PassContext) -> str:
        names = [value.name for value in model.graph.inputs]
        return "" if names == [name] else f"the inputs are {names}"

    return Condition(f"the only input is {name}", wrong)


PASS = Pass(
    "take-images",
    _run,
    requires=(Condition("the steps of the preprocessing are given", _without_steps), _other_input(INPUT)),
    ensures=(_other_input(IMAGES),),
)
