"""Outlier channels that overflow float16, in a network that computes the same function as before.

In some blocks, rows of the value projection are multiplied by a power of two, and the matching columns of the
projection behind the attention by its inverse. In float32 both are exact. In float16 the values overflow.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from PIL import Image

import vconv
from reduced_parts.crops import crops, saved
from vconv.artifact.artifact import Artifact
from vconv.catalog.systems import System
from vconv.convert.reduced import choices
from vconv.convert.reduced.islands import NARROW_TYPES, always_wide
from vconv.convert.reduced.plan import Plan
from vconv.convert.sources.table import Request, open_source
from vconv.errors import VconvError
from vconv.precisions import MIXED
from vconv.runtime.devices.table import find_device
from vconv.runtime.inputs.preprocessing import preprocess
from vconv.types import WEIGHTS_FILE, Array, Status
from vconv.validators.accuracy import golden
from vconv.validators.accuracy.limits import STRICT
from vconv.validators.accuracy.metrics import measure
from vconv.validators.accuracy.verdicts import judge, overall
from vconv.workflows.reduction_plans import Calibration, Planner

FACTOR = 2.0**17
CHANNELS = 4
"""The number of outlier channels in each of the two blocks."""
CALIBRATION, JUDGED = 16, 16
"""The number of crops on which plans are made, and of those on which the result is judged."""
CALIBRATION_SEED, JUDGED_SEED, CHANNEL_SEED = 11, 12, 13
RANDOM = 20
"""The number of random choices of nodes."""
ENGINE = "simulated-rounding"
LIMIT = STRICT["fp16", "fp16"]


def measured(system: System, weights: Path, scratch: Path) -> dict[str, Any]:
    """Inject outliers into weights, plan the graph in float16, and try random choices of as many nodes."""
    scratch.mkdir()
    altered = scratch / "weights"
    places = injected(weights, altered)
    calibration = saved(crops(CALIBRATION, CALIBRATION_SEED)[0], scratch / "calibration")
    judged = preprocess(altered, crops(JUDGED, JUDGED_SEED)[0])
    plain = _reference(system, weights, judged, scratch / "plain")
    expected = _reference(system, altered, judged, scratch / "altered")
    refused = _refusal(system, altered, scratch / "fp16")
    artifact = scratch / "mixed"
    vconv.export(system, altered, artifact, precision=["auto"], calibration=[calibration])
    with vconv.load(artifact, variant=f"onnx-{MIXED}", engine=ENGINE) as session:
        found = session(judged)
    planner = _planner(artifact, calibration)
    variants = {one.variant: one.reduction for one in Artifact.open(artifact).manifest.variants}
    plan = variants[f"onnx-{MIXED}"]
    assert plan is not None
    whole = planner.tried(Plan("fp16"))
    return {
        "factor": FACTOR,
        "channels": places,
        "difference_of_the_references": _worst(expected, plain),
        "fp16": {
            "fits": whole.fits,
            "finite": not math.isnan(whole.losses.cosine),
            "refused": refused,
        },
        "mixed": {
            "finite": all(bool(np.isfinite(value).all()) for value in found.values()),
            "status": overall(judge(found, expected, LIMIT)),
            "error": _worst(found, expected),
            "limit": LIMIT.bounds["vector_relative_error"],
            "share": plan.share,
            "kept": len(plan.kept),
        },
        "random": _random(planner, frozenset(plan.kept)),
        "calibration_crops": CALIBRATION,
        "judged_crops": JUDGED,
    }


def injected(weights: Path, target: Path) -> dict[str, list[int]]:
    """Write weights with outliers; return the channels of each block that has them."""
    shutil.copytree(weights, target)
    tensors = safetensors.numpy.load_file(weights / WEIGHTS_FILE)
    depth = json.loads((weights / "config.json").read_text())["num_hidden_layers"]
    random, places = np.random.Generator(np.random.PCG64(CHANNEL_SEED)), {}
    for block in sorted({depth // 4, 3 * depth // 4}):
        attention = f"encoder.layer.{block}.attention"
        value, dense = f"{attention}.attention.value", f"{attention}.output.dense.weight"
        rows = np.sort(random.choice(len(tensors[dense]), CHANNELS, replace=False))
        for name in (f"{value}.weight", f"{value}.bias"):
            tensors[name][rows] *= FACTOR
        tensors[dense][:, rows] /= FACTOR
        places[str(block)] = rows.tolist()
    safetensors.numpy.save_file(tensors, target / WEIGHTS_FILE, {"format": "pt"})
    return places


def _reference(system: System, weights: Path, pixel_values: Array, scratch: Path) -> dict[str, Array]:
    """Run the original, in fp32, one image after another."""
    scratch.mkdir()
    with golden.running(open_source(Request(system, str(weights)), scratch)) as run:
        found = [run(pixel_values[place : place + 1]) for place in range(len(pixel_values))]
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


def _refusal(system: System, weights: Path, target: Path) -> str:
    """Return the reason for which an export in float16 is refused; empty if it is not."""
    try:
        vconv.export(system, weights, target, precision=["fp16"])
    except VconvError as error:
        return str(error)
    return ""


def _planner(artifact: Path, calibration: Path) -> Planner:
    images = [Image.open(path) for path in sorted(calibration.iterdir())]
    planned_on = Calibration(preprocess(artifact, images), made_up=False)
    return Planner(artifact, planned_on, 1, None, find_device("cpu"), lambda _: None)


def _random(planner: Planner, kept: frozenset[str]) -> dict[str, Any]:
    """Keep as many nodes at random in float32 as a plan does, of those that are not always in float32."""
    model = planner.models["model.onnx"]
    nodes = choices.others(model) | choices.products(model)
    pool = sorted(nodes - always_wide(model, NARROW_TYPES[MIXED]))
    count, fits = len(kept.intersection(pool)), 0
    for seed in range(RANDOM):
        chosen = np.random.Generator(np.random.PCG64(seed)).choice(pool, count, replace=False)
        found = planner.tried(Plan(MIXED, frozenset(map(str, chosen))))
        fits += found.fits
        print(f"random choice {seed}: {'fits' if found.fits else 'does not fit'}", flush=True)
    return {"choices": RANDOM, "fit": fits, "nodes": count, "of": len(pool)}


def _worst(actual: Mapping[str, Array], expected: Mapping[str, Array]) -> float | None:
    """Return the worst vector relative error of an output over the images; None if it is not finite."""
    if not all(np.isfinite(actual[name]).all() for name in expected):
        return None
    return max(measure(name, actual[name], expected[name])["vector_relative_error"] for name in expected)


def missed(found: Mapping[str, Any], least_share: float, most_fitting: int) -> Sequence[str]:
    """Say which targets are missed."""
    fp16, mixed, random = found["fp16"], found["mixed"], found["random"]
    said = {
        "the reference is not the same with outliers": found["difference_of_the_references"] > 1e-5,
        "plain float16 fits": fp16["fits"] or not fp16["refused"],
        "the plan of auto is not within the limit": not mixed["finite"] or mixed["status"] != Status.PASSED,
        f"the plan of auto has a share of {mixed['share']:.3f}": mixed["share"] < least_share,
        f"{random['fit']} random choices fit": random["fit"] > most_fitting,
    }
    return [what for what, wrong in said.items() if wrong]
