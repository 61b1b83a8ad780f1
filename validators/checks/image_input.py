"""Checks of a graph that preprocesses images itself: its preprocessing, and the network behind it.

The network must give the reference's outputs for the reference's pixel values, within the limits of every
variant. No other graph of the artifact takes part, because it may be the wrong one. The preprocessing is held
against the library's own processor, in grey levels, on pictures of odd sizes. Where the processor resamples
the columns first, it is held against what that gives with the rows first: see :mod:`.pass_order`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from vconv.runtime.inputs.preprocessing import load_processor
from vconv.types import IMAGES, INPUT, Array, Arrays, Check, Status
from vconv.validators.accuracy.golden import Reference
from vconv.validators.accuracy.limits import Limit
from vconv.validators.accuracy.metrics import measure
from vconv.validators.accuracy.verdicts import judge
from vconv.validators.checks.pass_order import Expected, is_near, levels_apart, rows_first

PROBES = ((331, 517), (1023, 300), (225, 226), (97, 144))
"""Height and width of the pictures: larger and smaller than any network's, odd, long, and nearly square."""
LoadPiece = Callable[[onnx.ModelProto, tuple[str, ...]], RunPiece]
"""Loads a piece of a graph, from the piece and the names of its outputs."""
LEAST_COSINE = 0.9999
"""Least cosine between the features of the graph and those of its network after the library's processor.

Both resample in the same order: see :mod:`.pass_order`.
"""
TEXTURE = 12.0
"""Standard deviation of the texture of a probe, in levels of 255."""
MEAN_FAULT = 0.3
"""Greatest difference, in levels of 255 on average, that remains once the fault that is named is undone."""
_SEED = 177


def probes() -> list[Image.Image]:
    """Make the pictures of :data:`PROBES`, with the texture of photographs, which made-up images lack."""
    return [_textured(_SEED + place, *sides) for place, sides in enumerate(PROBES)]


def _textured(seed: int, height: int, width: int) -> Image.Image:
    smooth = np.array(natural_image(seed).resize((width, height)), np.float64)
    texture = np.random.Generator(np.random.PCG64(seed)).normal(0.0, TEXTURE, (height, width, 1))
    return Image.fromarray(np.clip(np.rint(smooth + texture), 0, 255).astype(np.uint8))


def open_network(
    path: Path, names: tuple[str, ...], load_piece: LoadPiece
) -> Callable[[Array], dict[str, Array]]:
    """Load the network of a graph that takes images, without its preprocessing.

    Args:
        path: the graph that takes images.
        names: the names of the outputs.
        load_piece: loads a piece of a graph.

    Returns:
        A function from pixel values, float32 (N, 3, H, W), to the outputs (N, ...), by name.

    Raises:
        EngineError: the engine refuses the network.
    """
    run = load_piece(_network(onnx.load(path, load_external_data=False)), names)
    return lambda pixel_values: run({INPUT: pixel_values})


def network_refused(path: Path, error: EngineError) -> Check:
    """Return the failed check of a network that :func:`open_network` cannot load, or that does not run."""
    return Check(f"{path.name}: network", Status.FAILED, f"its network cannot be run alone: {error}", "graph")


def check_network(path: Path, found: Arrays, reference: Reference, limit: Limit) -> Check:
    """Compare the network of a graph that takes images with the reference.

    Args:
        path: the graph that takes images.
        found: the outputs of its network on the reference's pixel values.
        reference: the reference.
        limit: the limit that each output must keep.
    """
    name = f"{path.name}: network"
    verdicts = judge(found, reference.outputs, limit)
    reasons = [f"{key}: {verdict.reasons[0]}" for key, verdict in verdicts.items() if verdict.reasons]
    if reasons:
        return Check(name, Status.FAILED, f"it differs from the reference: {reasons[0]}", "graph")
    worst = max(verdict.metrics["vector_relative_error"] for verdict in verdicts.values())
    return Check(name, Status.PASSED, f"within {worst:.1e} of the reference, on the same pixel values")


def _network(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph without its preprocessing: it takes pixel values."""
    graph = model.graph
    pixel_values = onnx.helper.make_tensor_value_info(INPUT, onnx.TensorProto.FLOAT, None)
    nodes = [node for node in graph.node if not node.name.startswith(PREFIX)]
    constants = [tensor for tensor in graph.initializer if not tensor.name.startswith(PREFIX)]
    alone = onnx.helper.make_graph(nodes, "network", [pixel_values], list(graph.output), constants)
    return onnx.helper.make_model(alone, opset_imports=model.opset_import, ir_version=model.ir_version)


def expected_of(folder: Path, pictures: Sequence[Image.Image], steps: ImageProcessing) -> list[Expected]:
    """Return what a graph must make of pictures, by a folder's image processor.

    Args:
        folder: a folder with the library's configuration files.
        pictures: RGB.
        steps: the steps of its image processor.
    """
    process = load_processor(folder)
    return [rows_first(picture, process([picture]), steps) for picture in pictures]


def check_preprocessing(
    path: Path, expected: Sequence[Expected], steps: ImageProcessing, load_piece: LoadPiece
) -> Check:
    """Compare the pixel values that a graph makes of pictures with those of a library's image processor.

    Args:
        path: the graph that takes images.
        expected: what it must make of the pictures of :func:`probes`.
        steps: the steps of the image processor.
        load_piece: loads a piece of a graph.
    """
    name = f"{path.name}: preprocessing"
    try:
        run = load_piece(_preprocessing(onnx.load(path, load_external_data=False)), (INPUT,))
        found = [run({IMAGES: as_levels(picture)[None]})[INPUT] for picture in probes()]
    except EngineError as error:
        return Check(name, Status.FAILED, f"its preprocessing cannot be run alone: {error}", "graph")
    worst_mean = worst = 0.0
    for actual, one in zip(found, expected, strict=True):
        wanted = one.pixel_values
        if actual.shape != wanted.shape:
            detail = f"images have the shape {list(actual.shape[1:])}, not {list(wanted.shape[1:])}"
            return Check(name, Status.FAILED, detail, "image size")
        apart = levels_apart(actual, wanted, steps)
        worst_mean, worst = max(worst_mean, float(apart.mean())), max(worst, float(apart.max()))
        if not is_near(apart):
            detail = f"pixels differ by {apart.mean():.3g} grey levels on average, by up to {apart.max():.3g}"
            return Check(name, Status.FAILED, detail, _fault(actual, wanted, steps))
    detail = f"within {worst_mean:.3f} grey levels of the library's processor on average, {worst:.2g} at most"
    mean, most = (max(one.reordered[place] for one in expected) for place in (0, 1))
    if most:
        detail += f"; {mean:.2f} and {most:.2g} where its Pillow resamples the columns first"
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


def _fault(found: Array, expected: Array, steps: ImageProcessing) -> str:
    """Return the class of fault that turns one batch of pixel values (N, 3, H, W) into another."""
    mean, std = (np.reshape(np.array(given), (1, -1, 1, 1)) for given in (steps.mean, steps.std))
    swapped = ((found * std + mean)[:, ::-1] - mean) / std
    if levels_apart(swapped, expected, steps).mean() <= MEAN_FAULT:
        return "channel order"
    fitted = np.stack(
        [_affine(one, other) for one, other in zip(found[0], expected[0], strict=True)], axis=0
    )[None]
    near = levels_apart(fitted, expected[:1], steps).mean() <= MEAN_FAULT
    return "normalisation" if near else "interpolation"


def _affine(found: Array, expected: Array) -> Array:
    """Return the affine function of one channel that is nearest to another channel."""
    scale, shift = np.polyfit(found.ravel().astype(np.float64), expected.ravel().astype(np.float64), 1)
    fitted: Array = scale * found + shift
    return fitted


def check_features(path: Path, found: Arrays, expected: Arrays) -> Check:
    """Compare the outputs of a graph that takes images with those of the library's processor and its network.

    Args:
        path: the graph that takes images.
        found: its outputs on the pictures of :func:`probes`.
        expected: the outputs of its network on what the library's processor makes of them, with the rows
            first.
    """
    name = f"{path.name}: features"
    cosines = {key: measure(key, found[key], expected[key])["cosine"] for key in expected}
    worst = min(cosines, key=lambda key: cosines[key])
    if not cosines[worst] >= LEAST_COSINE:
        detail = f"the cosine of {worst} to that of the library's processor is {cosines[worst]:.6f}"
        return Check(name, Status.FAILED, f"{detail}, expected at least {LEAST_COSINE}", "graph")
    detail = f"cosine at least {cosines[worst]:.7f} to those of the library's processor, in {worst}"
    return Check(name, Status.PASSED, detail)
