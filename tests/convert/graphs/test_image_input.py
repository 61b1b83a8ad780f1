"""The preprocessing inside a graph, beside each library's own processor, on images of odd sizes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import timm
import transformers
from PIL import Image
from timm.data import create_transform, resolve_data_config

from vconv.catalog.systems import SYSTEMS, System
from vconv.convert.graphs.image_input import IMAGES, take_images
from vconv.convert.libraries.image_processing import (
    IMAGE_PROCESSING,
    Filter,
    ImageProcessing,
    Resize,
    Start,
)
from vconv.runtime.inputs.images import natural_image
from vconv.types import INPUT, Array

SIZES = ((640, 480), (333, 517), (224, 224), (225, 225), (257, 256), (100, 75), (97, 601))
"""Width and height: larger and smaller than the network's, odd, square, long, and left as they are."""
NAMES = ("dinov3-vits16", "vit_small_patch16_dinov3.lvd1689m", "dinov2-large", "vit-base-patch16-224-in21k")
"""Every kind of processor: by library, filter, rule of the size, and order of the steps."""
MEAN_LEVELS, GREATEST_LEVELS = 0.3, 2.01
"""Tolerance in levels of 255. Libraries round filters to 8 or 16 bits, so that a pixel may be one level off
after each of the two passes."""


def model_of(steps: ImageProcessing, opset: int = 18) -> onnx.ModelProto:
    """Return a graph that only preprocesses."""
    given = ir.Value(
        name=INPUT, shape=ir.Shape(["batch", 3, None, None]), type=ir.TensorType(ir.DataType.FLOAT)
    )
    node = ir.node("Identity", [given])
    (result,) = node.outputs
    result.name, result.shape, result.type = "result", given.shape, given.type
    graph = ir.Graph([given], [result], nodes=[node], opset_imports={"": opset}, name="only")
    model = ir.Model(graph, ir_version=8)
    take_images(model, steps)
    made = ir.to_proto(model)
    onnx.checker.check_model(made, full_check=True)
    return made


def onnx_runtime(model: onnx.ModelProto) -> Callable[[Array], Array]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run(None, {IMAGES: images})[0])


def openvino_(model: onnx.ModelProto) -> Callable[[Array], Array]:
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", exact)
    return lambda images: np.asarray(compiled(images)[0])


def files(system: System, folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(dict(system.config)))
    if system.preprocessor:
        (folder / "preprocessor_config.json").write_text(json.dumps(dict(system.preprocessor)))


def stock(system: System, folder: Path) -> Callable[[Image.Image], Array]:
    """Return the library's own processor."""
    if system.library == "transformers":
        processor = transformers.AutoImageProcessor.from_pretrained(folder)
        return lambda image: np.asarray(processor(images=image, return_tensors="pt")["pixel_values"])
    model: Any = timm.create_model(f"local-dir:{folder}", pretrained=False)
    transform: Any = create_transform(**resolve_data_config({}, model=model), is_training=False)
    return lambda image: np.asarray(transform(image))[None]


@pytest.fixture(params=NAMES)
def system(request: pytest.FixtureRequest) -> System:
    return SYSTEMS[request.param]


@pytest.fixture
def steps(system: System, tmp_path: Path) -> ImageProcessing:
    files(system, tmp_path)
    return IMAGE_PROCESSING[system.library](tmp_path, system.config)


def levels_apart(found: Array, expected: Array, steps: ImageProcessing) -> Array:
    assert found.shape == expected.shape
    difference: Array = np.abs(found - expected) * np.reshape(steps.std, (1, 3, 1, 1)) / steps.factor
    return difference


@pytest.mark.parametrize(("engine", "opset"), [(onnx_runtime, 13), (openvino_, 18)])
def test_pixel_values_are_those_of_the_library(
    system: System, steps: ImageProcessing, engine: Callable[..., Any], opset: int, tmp_path: Path
) -> None:
    run, process = engine(model_of(steps, opset)), stock(system, tmp_path)
    for place, size in enumerate(SIZES):
        image = natural_image(place).resize(size)
        apart = levels_apart(run(np.array(image)[None]), process(image), steps)
        assert apart.mean() < MEAN_LEVELS, size
        assert apart.max() < GREATEST_LEVELS, size


WRONG: dict[str, Callable[[ImageProcessing], ImageProcessing]] = {
    "another mean": lambda steps: replace(steps, mean=tuple(value + 0.01 for value in steps.mean)),
    "another deviation": lambda steps: replace(steps, std=tuple(value * 1.05 for value in steps.std)),
    "another filter": lambda steps: replace(
        steps,
        resize=replace(steps.resize, filter=Filter.LANCZOS) if steps.resize else None,
    ),
    "another size": lambda steps: replace(
        steps, resize=Resize((300, 300), Filter.BICUBIC, whole_levels=True), crop=(224, 224)
    ),
}
"""Faults of the steps, each of which must be seen."""


@pytest.mark.parametrize("fault", sorted(WRONG))
def test_a_wrong_step_is_seen(fault: str, tmp_path: Path) -> None:
    system = SYSTEMS["dinov2-large"]
    files(system, tmp_path)
    steps = IMAGE_PROCESSING["transformers"](tmp_path, system.config)
    image = natural_image(0).resize((640, 480))
    found = onnx_runtime(model_of(WRONG[fault](steps)))(np.array(image)[None])
    assert levels_apart(found, stock(system, tmp_path)(image), steps).mean() > MEAN_LEVELS


def test_channels_in_another_order_are_seen(tmp_path: Path) -> None:
    system = SYSTEMS["dinov2-large"]
    files(system, tmp_path)
    steps = IMAGE_PROCESSING["transformers"](tmp_path, system.config)
    image = natural_image(0).resize((640, 480))
    swapped = np.array(image)[None, :, :, ::-1].copy()
    found = onnx_runtime(model_of(steps))(swapped)
    assert levels_apart(found, stock(system, tmp_path)(image), steps).mean() > MEAN_LEVELS


@pytest.mark.parametrize("filter_", list(Filter))
@pytest.mark.parametrize("size", [(61, 47), (400, 117), (19, 23)])
def test_each_filter_is_pillows(filter_: Filter, size: tuple[int, int]) -> None:
    # At these sizes every version of Pillow resamples the rows first; Pillow 13 begins with the cheaper pass.
    steps = ImageProcessing(
        Resize((53, 39), filter_, whole_levels=True), None, Start.DOWN, 1.0, (0,) * 3, (1,) * 3
    )
    image = natural_image(5).resize(size)
    expected = np.array(image.resize((39, 53), Image.Resampling[filter_.name])).transpose(2, 0, 1)[None]
    found = onnx_runtime(model_of(steps))(np.array(image)[None])
    apart = np.abs(found - expected)
    assert apart.max() <= 1
    assert apart.mean() < 0.01


@pytest.mark.parametrize(
    ("start", "first"), [(Start.DOWN, {9: 2, 10: 2, 11: 3}), (Start.HALF_TO_EVEN, {9: 2, 10: 2, 11: 4})]
)
def test_a_crop_starts_where_its_library_starts_it(start: Start, first: dict[int, int]) -> None:
    # (9 - 5) / 2 = 2; (10 - 5) / 2 = 2.5, whose half goes down or to the even 2; (11 - 4) / 2 = 3.5.
    for side, expected in first.items():
        kept = 4 if side == 11 else 5
        steps = ImageProcessing(None, (kept, kept), start, 1.0, (0,) * 3, (1,) * 3)
        image = np.zeros((1, side, side, 3), np.uint8)
        image[0, :, :, 0] = np.arange(side)[:, None]
        image[0, :, :, 1] = np.arange(side)[None]
        found = onnx_runtime(model_of(steps))(image)
        assert found[0, :2, 0, 0].tolist() == [expected, expected]


def test_a_batch_of_images_of_one_size_gives_the_same_as_each_alone() -> None:
    steps = ImageProcessing(
        Resize(20, Filter.BICUBIC, True), (16, 16), Start.DOWN, 1 / 255, (0.5,) * 3, (0.2,) * 3
    )
    run = onnx_runtime(model_of(steps))
    images = np.stack([np.array(natural_image(seed).resize((50, 40))) for seed in range(3)])
    alone = np.concatenate([run(image[None]) for image in images])
    assert np.array_equal(run(images), alone)


def test_no_operator_resizes() -> None:
    steps = ImageProcessing(
        Resize(20, Filter.BICUBIC, True), (16, 16), Start.DOWN, 1 / 255, (0.5,) * 3, (0.2,) * 3
    )
    used = {node.op_type for node in model_of(steps).graph.node}
    assert used.isdisjoint({"Resize", "Upsample", "If", "Loop", "Scan", "Range"})
