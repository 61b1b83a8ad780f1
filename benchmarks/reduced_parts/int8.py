"""Graphs of 8-bit whole numbers: vconv's, and those of ONNX Runtime's own quantisation of the same graph.

ONNX Runtime's documentation advises its pre-processing before quantisation, and it runs here:
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html#pre-processing. All other
options have their default values.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx_ir.passes.common import ShapeInferencePass
from PIL import Image

import vconv
from reduced_parts.crops import crops, kept, saved
from vconv.artifact.artifact import Artifact
from vconv.catalog.systems import System
from vconv.convert.reduced.products import multiply_adds
from vconv.convert.sources.table import Request, open_source
from vconv.errors import VconvError
from vconv.runtime.inputs.preprocessing import preprocess
from vconv.types import INPUT, Array
from vconv.validators.accuracy import golden
from vconv.validators.accuracy.metrics import measure

CROPS, SEED = 200, 0
CALIBRATION, CALIBRATION_SEED = 64, 7
MAX_DROP = 0.02
_BATCH = 4
_QUANTISED = "_quant"
"""The end of the name of a node that ``quantize_dynamic`` writes in place of another."""


@dataclass(frozen=True)
class Bench:
    """What all ways of quantising share.

    Args:
        system: the system.
        weights: the folder with its weights.
        scratch: a folder for what is made.
        calibration: the folder with the crops on which ranges are found.
        plain: the artifact with the graph in float32.
        seconds: the seconds that its export took.
    """

    system: System
    weights: Path
    scratch: Path
    calibration: Path
    plain: Path
    seconds: float


@dataclass(frozen=True)
class Made:
    """A graph that was made.

    Args:
        path: the graph.
        share: the share of the multiply-adds that are quantised, from 0 to 1.
        quantised: the number of products that are quantised.
    """

    path: Path
    share: float
    quantised: int


def prepared(system: System, weights: Path, scratch: Path) -> Bench:
    """Cut the crops of the calibration, and export the graph in float32."""
    scratch.mkdir()
    calibration = saved(crops(CALIBRATION, CALIBRATION_SEED)[0], scratch / "calibration")
    start = time.perf_counter()
    vconv.export(system, weights, scratch / "plain")
    seconds = time.perf_counter() - start
    return Bench(system, weights, scratch, calibration, scratch / "plain", seconds)


def by_vconv(precision: str, max_drop: float | None, bench: Bench, folder: Path) -> Made:
    """Export an artifact with a graph in a reduced precision."""
    vconv.export(
        *(bench.system, bench.weights, folder),
        precision=[precision],
        calibration=[bench.calibration],
        max_drop=max_drop,
    )
    path = f"{precision}/model.onnx"
    (record,) = (one for one in Artifact.open(folder).manifest.variants if one.path == path)
    assert record.reduction is not None
    return Made(folder / path, record.reduction.share, len(record.reduction.quantised))


class _Reader:
    """Gives ONNX Runtime the crops of the calibration, one by one.

    Args:
        pixel_values: float32 (N, 3, H, W).
    """

    def __init__(self, pixel_values: Array) -> None:
        self._left: Iterator[Array] = iter(pixel_values)

    def get_next(self) -> dict[str, Array] | None:
        """Return the input of the next run; None at the end."""
        image = next(self._left, None)
        return None if image is None else {INPUT: image[None]}


def static_by_onnxruntime(bench: Bench, folder: Path) -> Made:
    """Quantise with ranges of the calibration, by ONNX Runtime's ``quantize_static``."""
    from onnxruntime.quantization import quantize_static

    images = [Image.open(path) for path in sorted(bench.calibration.iterdir())]
    before, made = _preprocessed(bench, folder), folder / "static.onnx"
    quantize_static(before, made, _Reader(preprocess(bench.plain, images)))
    return _counted(before, made)


def dynamic_by_onnxruntime(bench: Bench, folder: Path) -> Made:
    """Quantise with the ranges of each run, by ONNX Runtime's ``quantize_dynamic``."""
    from onnxruntime.quantization import quantize_dynamic

    before, made = _preprocessed(bench, folder), folder / "dynamic.onnx"
    quantize_dynamic(before, made)
    return _counted(before, made)


def _preprocessed(bench: Bench, folder: Path) -> Path:
    from onnxruntime.quantization.shape_inference import quant_pre_process

    folder.mkdir()
    quant_pre_process(bench.plain / "model.onnx", folder / "preprocessed.onnx")
    return folder / "preprocessed.onnx"


def _counted(before: Path, made: Path) -> Made:
    """Count what ONNX Runtime quantised, by the names of the nodes."""
    shaped = ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(ir.load(before)).model
    costs = multiply_adds(shaped)
    graph = onnx.load(made).graph
    dequantised = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    names = {node.name for node in graph.node if {*node.input[:2]} <= dequantised}
    names |= {node.name.removesuffix(_QUANTISED) for node in graph.node if node.op_type.endswith("Integer")}
    low = costs.keys() & names
    return Made(made, sum(costs[name] for name in low) / sum(costs.values()), len(low))


WAYS: Mapping[str, Callable[[Bench, Path], Made]] = {
    f"vconv int8, --max-drop {MAX_DROP}": partial(by_vconv, "int8", MAX_DROP),
    "vconv int8": partial(by_vconv, "int8", None),
    "vconv int8-dynamic": partial(by_vconv, "int8-dynamic", None),
    "onnxruntime quantize_static": static_by_onnxruntime,
    "onnxruntime quantize_dynamic": dynamic_by_onnxruntime,
}
"""The ways of quantising, the judged one first."""
JUDGED = next(iter(WAYS))


def expected(bench: Bench) -> tuple[Array, dict[str, Array], list[str]]:
    """Run the original on the crops.

    Returns:
        The pixel values, the outputs, and the photograph of each crop.
    """
    images, names = crops(CROPS, SEED)
    folder = bench.scratch / "source"
    folder.mkdir()
    pixel_values = preprocess(bench.plain, images)
    with golden.running(open_source(Request(bench.system, str(bench.weights)), folder)) as run:
        return pixel_values, _joined(run, pixel_values), names


def measured(
    way: str, bench: Bench, pixel_values: Array, wanted: Mapping[str, Array], names: list[str]
) -> dict[str, Any]:
    """Quantise in one way, and compare the graph with the original on the crops."""
    start = time.perf_counter()
    try:
        made = WAYS[way](bench, bench.scratch / way.replace(" ", "-"))
    except VconvError as error:
        return {"refused": str(error)}
    seconds = time.perf_counter() - start
    session = onnxruntime.InferenceSession(made.path, providers=["CPUExecutionProvider"])
    outputs = [value.name for value in session.get_outputs()]
    found = _joined(
        lambda batch: dict(zip(outputs, session.run(None, {INPUT: batch}), strict=True)), pixel_values
    )
    metrics = [measure(name, found[name], wanted[name]) for name in wanted]
    return {
        "refused": "",
        "kept": kept(found["pooled"], wanted["pooled"], names),
        "error": max(one["vector_relative_error"] for one in metrics),
        "token_cosine_min": min(one["token_cosine_min"] for one in metrics),
        "share": made.share,
        "quantised": made.quantised,
        "seconds": seconds,
    }


def _joined(run: Callable[[Array], Mapping[str, Array]], pixel_values: Array) -> dict[str, Array]:
    found = [run(pixel_values[place : place + _BATCH]) for place in range(0, len(pixel_values), _BATCH)]
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}
