"""The pass that puts the preprocessing in front; tests/convert/graphs/test_image_input.py has its numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from vconv.convert.graphs.passes.base import PassContext, PassError, run_passes
from vconv.convert.graphs.passes.table import named
from vconv.convert.libraries.image_processing import Filter, ImageProcessing, Resize, Start
from vconv.types import IMAGES, INPUT

HALF = (0.5,) * 3, (0.25,) * 3
only_take_images = named(("take-images",))


def steps(size: tuple[int, int]) -> ImageProcessing:
    resize = Resize(size, Filter.BILINEAR, whole_levels=True)
    return ImageProcessing(resize, None, Start.DOWN, 1 / 255, *HALF)


def test_the_graph_computes_the_same_from_images_as_from_pixel_values(
    small_artifact: Path, size: tuple[int, int], tmp_path: Path
) -> None:
    model = ir.load(small_artifact / "model.onnx")
    run_passes(model, only_take_images, PassContext(image_processing=steps(size)))
    assert [value.name for value in model.graph.inputs] == [IMAGES]
    ir.save(model, tmp_path / "images.onnx")
    images = np.random.default_rng(3).integers(0, 256, (2, *size, 3), np.uint8)
    pixel_values = ((images / 255 - 0.5) / 0.25).transpose(0, 3, 1, 2).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(small_artifact)
    )
    content = (tmp_path / "images.onnx").read_bytes()
    found = onnxruntime.InferenceSession(content, options).run(None, {IMAGES: images})
    expected = onnxruntime.InferenceSession(small_artifact / "model.onnx").run(None, {INPUT: pixel_values})
    for one, other in zip(found, expected, strict=True):
        assert np.linalg.norm(one - other) / np.linalg.norm(other) < 1e-5


def test_the_pass_needs_the_steps_and_a_graph_that_takes_pixel_values(
    small_artifact: Path, size: tuple[int, int]
) -> None:
    model = ir.load(small_artifact / "model.onnx")
    with pytest.raises(PassError, match="the context has no image processing"):
        run_passes(model, only_take_images, PassContext())
    context = PassContext(image_processing=steps(size))
    run_passes(model, only_take_images, context)
    with pytest.raises(PassError, match=r"the only input is pixel_values.*\['images'\]"):
        run_passes(model, only_take_images, context)
