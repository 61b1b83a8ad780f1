"""A graph that resamples to a size of the run, held against torch's own interpolation at many sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import openvino
import pytest
import torch

from vconv.convert.graphs.passes.base import PassContext, PassError, run_passes
from vconv.convert.graphs.passes.resize_as_matmul import PASS, resize_as_matmul

Distance = Callable[[Any, Any], float]

SIZES = [(5, 7), (2, 2), (2, 19), (11, 3), (16, 16), (40, 33), (5, 6)]
"""Sizes to resample an image of 5x7 to: its own, smaller, greater, and of other proportions."""
GREATEST = 40
FORMS = [
    {"antialias": 0, "cubic_coeff_a": -0.75},
    {"antialias": 1, "cubic_coeff_a": -0.75},
    {"antialias": 0, "cubic_coeff_a": -0.75, "coordinate_transformation_mode": "pytorch_half_pixel"},
]


def graph_to_any_size(names: tuple[Any, ...] = (1, 6, "rows", "columns"), **attributes: Any) -> ir.Graph:
    """Resize ``x`` to the height and width in ``sizes``, as the exporter writes it."""
    x = ir.Value(name="x", shape=ir.Shape((1, 6, 5, 7)), type=ir.TensorType(ir.DataType.FLOAT))
    sizes = ir.Value(name="sizes", shape=ir.Shape([4]), type=ir.TensorType(ir.DataType.INT64))
    y = ir.Value(name="y", shape=ir.Shape(names), type=ir.TensorType(ir.DataType.FLOAT))
    given = {"mode": "cubic", "coordinate_transformation_mode": "half_pixel", **attributes}
    made = ir.Node(
        "", "Resize", [x, None, None, sizes], ir.convenience.convert_attributes(given), outputs=[y]
    )
    return ir.Graph([x, sizes], [y], nodes=[made], opset_imports={"": 18}, name="g")


@pytest.mark.parametrize("form", FORMS)
def test_a_graph_resamples_to_any_size_as_torch_does(
    form: dict[str, Any], tmp_path: Path, distance: Distance
) -> None:
    graph = graph_to_any_size(**form)
    assert resize_as_matmul(graph, GREATEST) == 1
    assert not {"Resize", "Range", "If", "Loop"} & {node.op_type for node in graph}
    assert graph.outputs[0].name == "y"
    path = tmp_path / "graph.onnx"
    ir.save(ir.Model(graph, ir_version=8), path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled: Any = openvino.Core().compile_model(str(path), "CPU", settings)
    images = np.random.default_rng(5).standard_normal((1, 6, 5, 7), dtype=np.float32)
    for height, width in SIZES:
        expected = torch.nn.functional.interpolate(
            torch.from_numpy(images), size=(height, width), mode="bicubic", antialias=bool(form["antialias"])
        )
        feed = {"x": images, "sizes": np.array([1, 6, height, width])}
        assert distance(session.run(None, feed)[0], expected) < 2e-6
        assert distance(compiled(feed)[0], expected) < 2e-6


@pytest.mark.parametrize("form", FORMS)
def test_to_its_own_size_an_image_is_left_as_it_is(form: dict[str, Any], tmp_path: Path) -> None:
    graph = graph_to_any_size(**form)
    resize_as_matmul(graph, GREATEST)
    path = tmp_path / "graph.onnx"
    ir.save(ir.Model(graph, ir_version=8), path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(5).standard_normal((1, 6, 5, 7), dtype=np.float32)
    (found,) = session.run(None, {"x": images, "sizes": np.array([1, 6, 5, 7])})
    np.testing.assert_allclose(found, images, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"mode": "linear"},
        {"mode": "nearest"},
        {"coordinate_transformation_mode": "align_corners"},
        {"exclude_outside": 1},
        {"antialias": 1, "coordinate_transformation_mode": "asymmetric"},
    ],
)
def test_a_resize_to_any_size_that_has_no_matrices_is_an_error(change: dict[str, Any]) -> None:
    model = ir.Model(graph_to_any_size(**change), ir_version=8)
    with pytest.raises(PassError, match="'no cubic Resize with antialiasing, and none to a size of the run'"):
        run_passes(model, [PASS], PassContext(greatest_grid=GREATEST))


def test_an_antialiased_resize_that_has_no_matrices_is_an_error_at_a_known_size_too() -> None:
    graph = graph_to_any_size((1, 6, 4, 4), antialias=1, coordinate_transformation_mode="asymmetric")
    with pytest.raises(PassError, match="no cubic Resize with antialiasing"):
        run_passes(ir.Model(graph, ir_version=8), [PASS], PassContext())


def test_a_resize_to_any_size_needs_a_bound() -> None:
    with pytest.raises(ValueError, match="its bound is not known"):
        resize_as_matmul(graph_to_any_size())
