"""Checks of a graph that preprocesses images itself: its preprocessing, and the network behind it.

The network must give what the dynamic graph gives for the same pixel values, within strict limits. The
preprocessing is held against the library's own processor, in grey levels, on pictures of odd sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from PIL import Image

from vconv.convert.graphs.image_input import PREFIX
from vconv.convert.libraries.image_processing import ImageProcessing
from vconv.errors import EngineError
from vconv.runtime.engines.base import RunPiece
from vconv.runtime.engines.from_images import as_levels
from vconv.runtime.inputs.images import natural_image
from vconv.runtime.inputs.preprocessing import preprocess
from vconv.types import IMAGES, INPUT, Array, Arrays, Check, Status
from vconv.validators.accuracy.limits import STRICT
from vconv.validators.accuracy.metrics import measure
from vconv.validators.accuracy.verdicts import judge

PROBES = ((331, 517), (1023, 300), (225, 226), (97, 144))
"""Height and width of the pictures: larger and smaller than any network's, odd, long, and nearly square."""
MEAN_LEVELS, GREATEST_LEVELS = 0.3, 3.0
"""Greatest difference from the library's processor, in levels of 255, over all pixels and at one pixel.

A library rounds to whole levels after each of two passes, and computes filters in 8, 16 or 22 bits. On five
processors, with the oldest and the newest libraries, the mean was at most 0.012, and 2 at one pixel. From
version 13 on, Pillow begins with the columns where that is cheaper; the graph always begins with the rows, as
all others do. Then the mean was at most 0.25.
"""
LoadPiece = Callable[[onnx.ModelProto, tuple[str, ...]], RunPiece]
"""Loads a piece of a graph, from the piece and the names of its outputs."""
LEAST_COSINE = 0.9999
"""Least cosine between the features of the graph and those of the library's processor and the network."""
TEXTURE = 12.0
"""Standard deviation of the texture of a probe, in levels of 255."""
_SEED = 177


def probes() -> list[Image.Image]:
    """Make the pictures of :data:`PROBES`, with the texture of photographs, which made-up images lack."""
    return [_textured(_SEED + place, *sides) for place, sides in enumerate(PROBES)]


def _textured(seed: int, height: int, width: int) -> Image.Image:
    smooth = np.array(natural_image(seed).resize((width, height)), np.float64)
    texture = np.random.Generator(np.random.PCG64(seed)).normal(0.0, TEXTURE, (height, width, 1))
    return Image.fromarray(np.clip(np.rint(smooth + texture), 0, 255).astype(np.uint8))


def check_network(
    path: Path, pixel_values: Array, expected: Arrays, names: tuple[str, ...], load_piece: LoadPiece
) -> Check:
    """Compare the network of a graph that takes images with that of the dynamic graph.

    Args:
        path: the graph that takes images.
        pixel_values: float32 (N, 3, H, W).
        expected: the outputs of the dynamic graph on them.
        names: the names of the outputs.
        load_piece: loads a piece of a graph.
    """
    name = f"{path.name}: network"
    try:
        run = load_piece(_network(onnx.load(path, load_external_data=False)), names)
        found = run({INPUT: pixel_values})
    except EngineError as error:
        return Check(name, Status.FAILED, f"its network cannot be run alone: {error}", "graph")
    verdicts = judge(found, expected, STRICT["fp32", "fp32"])
    reasons = [f"{key}: {verdict.reasons[0]}" for key, verdict in verdicts.items() if verdict.reasons]
    if reasons:
        return Check(name, Status.FAILED, f"it differs from the dynamic graph: {reasons[0]}", "graph")
    worst = max(verdict.metrics["vector_relative_error"] for verdict in verdicts.values())
    return Check(name, Status.PASSED, f"within {worst:.1e} of the dynamic graph, on the same pixel values")


def _network(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph without its preprocessing: it takes pixel values."""
    graph = model.graph
    pixel_values = onnx.helper.make_tensor_value_info(INPUT, onnx.TensorProto.FLOAT, None)
    nodes = [node for node in graph.node if not node.name.startswith(PREFIX)]
    constants = [tensor for tensor in graph.initializer if not tensor.name.startswith(PREFIX)]
    alone = onnx.helper.make_graph(nodes, "network", [pixel_values], list(graph.output), constants)
    return onnx.helper.make_model(alone, opset_imports=model.opset_import, ir_version=model.ir_version)


def check_preprocessing(path: Path, folder: Path, steps: ImageProcessing, load_piece: LoadPiece) -> Check:
    """Compare the pixel values that a graph makes of pictures with those of a folder's image processor.

    Args:
        path: the graph that takes images.
        folder: a folder with the library's configuration files.
        steps: the steps of its image processor.
        load_piece: loads a piece of a graph.
    """
    name = f"{path.name}: preprocessing"
    try:
        run = load_piece(_preprocessing(onnx.load(path, load_external_data=False)), (INPUT,))
        pairs = [
            (run({IMAGES: as_levels(picture)[None]})[INPUT], preprocess(folder, [picture]))
            for picture in probes()
        ]
    except EngineError as error:
        return Check(name, Status.FAILED, f"its preprocessing cannot be run alone: {error}", "graph")
    worst_mean = worst = 0.0
    for found, expected in pairs:
        if found.shape != expected.shape:
            detail = f"images have the shape {list(found.shape[1:])}, not {list(expected.shape[1:])}"
            return Check(name, Status.FAILED, detail, "image size")
        apart = _apart(found, expected, steps)
        worst_mean, worst = max(worst_mean, float(apart.mean())), max(worst, float(apart.max()))
        if not (worst_mean <= MEAN_LEVELS and worst <= GREATEST_LEVELS):
            detail = f"pixels differ by {apart.mean():.3g} grey levels on average, by up to {apart.max():.3g}"
            return Check(name, Status.FAILED, detail, _fault(found, expected, steps))
    detail = f"within {worst_mean:.3f} grey levels of the library's processor on average, {worst:.2g} at most"
    return Check(name, Status.PASSED, detail)


def _preprocessing(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the preprocessing of a graph as a separate graph."""
    graph = model.graph
    (images,) = graph.input
    pixel_values = onnx.helper.make_tensor_value_info(INPUT, onnx.TensorProto.FLOAT, None)
    nodes = [node for node in graph.node if node.name.startswith(PREFIX)]
    constants = [tensor for tensor in graph.initializer if tensor.name.startswith(PREFIX)]
    alone = onnx.helper.make_graph(nodes, "preprocessing", [images], [pixel_values], constants)
    return onnx.helper.make_model(alone, opset_imports=model.opset_import, ir_version=model.ir_version)


def _levels(pixel_values: Array, steps: ImageProcessing) -> Array:
    """Return the grey levels of pixel values."""
    mean, std = (np.reshape(np.array(given), (1, -1, 1, 1)) for given in (steps.mean, steps.std))
    levels: Array = (pixel_values * std + mean) / steps.factor
    return levels


def _apart(found: Array, expected: Array, steps: ImageProcessing) -> Array:
    """Return how far two batches of pixel values are apart, in grey levels."""
    difference: Array = np.abs(_levels(found, steps) - _levels(expected, steps))
    return difference


def _fault(found: Array, expected: Array, steps: ImageProcessing) -> str:
    """Return the class of fault that turns one batch of pixel values (N, 3, H, W) into another."""
    levels, others = (_levels(values, steps) for values in (found, expected))
    if np.abs(levels[:, ::-1] - others).mean() <= MEAN_LEVELS:
        return "channel order"
    fitted = np.stack(
        [_affine(one, other) for one, other in zip(found[0], expected[0], strict=True)], axis=0
    )[None]
    return "normalisation" if _apart(fitted, expected[:1], steps).mean() <= MEAN_LEVELS else "interpolation"


def _affine(found: Array, expected: Array) -> Array:
    """Return the affine function of one channel that is nearest to another channel."""
    scale, shift = np.polyfit(found.ravel().astype(np.float64), expected.ravel().astype(np.float64), 1)
    fitted: Array = scale * found + shift
    return fitted


def check_features(path: Path, found: Arrays, expected: Arrays) -> Check:
    """Compare the outputs of a graph that takes images with those of the library's processor and the network.

    Args:
        path: the graph that takes images.
        found: its outputs on the pictures of :func:`probes`.
        expected: the outputs of the dynamic graph on what the library's processor makes of them.
    """
    name = f"{path.name}: features"
    cosines = {key: measure(key, found[key], expected[key])["cosine"] for key in expected}
    worst = min(cosines, key=lambda key: cosines[key])
    if not cosines[worst] >= LEAST_COSINE:
        detail = f"the cosine of {worst} to that of the library's processor is {cosines[worst]:.6f}"
        return Check(name, Status.FAILED, f"{detail}, expected at least {LEAST_COSINE}", "graph")
    detail = f"cosine at least {cosines[worst]:.7f} to those of the library's processor, in {worst}"
    return Check(name, Status.PASSED, detail)
