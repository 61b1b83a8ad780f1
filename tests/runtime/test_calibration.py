"""The ranges of a graph's values on images, against NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from vconv.runtime.calibration import Seen, observe
from vconv.runtime.devices.table import find_device
from vconv.types import INPUT, Array

CHANCE = np.random.default_rng(4)
IMAGES = CHANCE.standard_normal((6, 3, 4, 4), np.float32)
KERNELS = CHANCE.standard_normal((5, 3, 2, 2), np.float32)


def save(folder: Path, batch: int | str, opset: int, side: int | str = 4) -> Path:
    """Write a graph that gives patches, tokens, something of whole numbers, and a scalar."""
    node = helper.make_node
    nodes = [
        node("Conv", [INPUT, "kernels"], ["patches"], strides=[2, 2]),
        node("Reshape", ["patches", "rows"], ["rows5"]),
        node("Transpose", ["rows5"], ["tokens"], perm=[0, 2, 1]),
        node("ArgMax", ["tokens"], ["places"], axis=2),
        node("ReduceMax", ["tokens"], ["greatest"], keepdims=0),
        node("Exp", ["tokens"], ["y"]),
    ]
    shape = [batch, 3, side, side]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(KERNELS, "kernels"),
            numpy_helper.from_array(np.array([0, 5, -1]), "rows"),
        ],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def tokens(images: Array) -> Array:
    """Compute the tokens (N, 4, 5) in float64: each is a patch of 2 x 2 pixels."""
    cut = images.astype(np.float64).reshape(len(images), 3, 2, 2, 2, 2)
    return np.einsum("ncihjw,kchw->nijk", cut, KERNELS.astype(np.float64)).reshape(len(images), 4, 5)


@pytest.mark.parametrize(
    ("batch", "opset"),
    [("n", 18), (1, 18), (2, 18), (3, 17), (2, 13)],
    ids=["any-batch", "batch-1", "batch-2", "opset-17", "opset-13"],
)
def test_the_least_and_the_greatest_of_every_value_are_found(
    batch: int | str, opset: int, tmp_path: Path
) -> None:
    graph = save(tmp_path, batch, opset)
    before = graph.read_bytes()
    found = observe(
        graph, [IMAGES], find_device("cpu"), ["tokens", "y"], batch if isinstance(batch, int) else 1
    )
    made = tokens(IMAGES)
    assert set(found) == {"patches", "rows5", "tokens", "greatest", "y"}, "ArgMax gives whole numbers"
    for name, value in {"patches": made, "rows5": made, "tokens": made, "y": np.exp(made)}.items():
        np.testing.assert_allclose(
            [found[name].least, found[name].greatest], [value.min(), value.max()], rtol=1e-5
        )
        if name not in ("tokens", "y"):
            assert found[name].channels is None
            continue
        expected = np.stack([value.min(axis=(0, 1)), value.max(axis=(0, 1))])
        channels = found[name].channels
        assert channels is not None and channels.dtype == np.float32
        np.testing.assert_allclose(channels, expected, rtol=1e-4, atol=1e-6)
    assert found["greatest"].greatest == pytest.approx(made.max(), rel=1e-5)
    assert graph.read_bytes() == before


def test_each_image_counts(tmp_path: Path) -> None:
    images = IMAGES.copy()
    images[3] *= 100
    found = observe(save(tmp_path, "n", 18), [images], find_device("cpu"), ["tokens"])["tokens"]
    made = tokens(images)
    assert found.least == pytest.approx(made.min(), rel=1e-5)
    assert found.magnitude == pytest.approx(np.abs(made).max(), rel=1e-5)


def test_images_of_every_size_count(tmp_path: Path) -> None:
    graph = save(tmp_path, "n", 18, side="side")
    small = 100 * IMAGES[:1, :, :2, :2]
    found = observe(graph, [IMAGES, small], find_device("cpu"), ["tokens"])["tokens"]
    (patch,) = np.einsum("nchw,kchw->nk", small.astype(np.float64), KERNELS.astype(np.float64))
    made = tokens(IMAGES)
    expected = [np.minimum(made.min(axis=(0, 1)), patch), np.maximum(made.max(axis=(0, 1)), patch)]
    assert np.abs(patch).max() > np.abs(made).max()
    np.testing.assert_allclose(found.channels, np.stack(expected), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("least", "greatest", "magnitude"), [(-3, 2, 3), (1, 2, 2), (-2, -1, 2), (0, 0, 0)])
def test_the_magnitude_is_that_of_the_farther_end(least: float, greatest: float, magnitude: float) -> None:
    assert Seen(least, greatest).magnitude == magnitude


@pytest.mark.parametrize("end", ["least", "greatest"])
def test_the_magnitude_of_nan_is_nan(end: str) -> None:
    assert np.isnan(Seen(**{"least": -1.0, "greatest": 1.0, end: float("nan")}).magnitude)
