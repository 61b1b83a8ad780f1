"""What the limits let through, on artifacts and devices, and the measurements that they stand on."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from vconv.artifact.manifest import Manifest
from vconv.precisions import PRECISIONS, Precision
from vconv.types import Array, Status
from vconv.validators.accuracy import golden
from vconv.validators.accuracy.limits import STRICT, TABLES, Pair
from vconv.validators.accuracy.verdicts import judge, overall

INSIDE_CARD = [("fp32", "fp32"), ("fp32", "hf32"), ("fp16", "fp16")]
"""The strict limits that lie inside what published reports use."""


def spread(expected: Array) -> float:
    """Return the most by which relative_error can exceed vector_relative_error at this output.

    mean|a - e| is at most ||a - e|| / sqrt(n) (Cauchy and Schwarz), so the factor is
    sqrt(n) ||e|| / sum|e|: 1 for a flat output, sqrt(n) for one with a single element.
    """
    flat = expected.astype(np.float64).ravel()
    return float(math.sqrt(flat.size) * np.linalg.norm(flat) / np.abs(flat).sum())


@pytest.mark.parametrize("key", INSIDE_CARD)
def test_the_first_three_strict_limits_imply_the_card_on_every_output(
    key: tuple[str, str], small_artifact: Path, made: Manifest
) -> None:
    strict = STRICT[key].bounds["vector_relative_error"]
    card = TABLES["card"][key].bounds
    assert made.golden
    _, outputs = golden.load(small_artifact / made.golden.path)
    assert set(card) == {"vector_relative_error", "relative_error", "cosine"}
    assert strict <= card["vector_relative_error"]
    assert math.sqrt(1 - strict**2) >= card["cosine"]
    for expected in outputs.values():
        assert strict * max(spread(image) for image in expected) <= card["relative_error"]


@pytest.mark.parametrize("key", INSIDE_CARD)
def test_the_worst_that_a_strict_limit_lets_through_passes_the_card(
    key: tuple[str, str], small_artifact: Path, made: Manifest
) -> None:
    bound = 0.999 * STRICT[key].bounds["vector_relative_error"]
    assert made.golden
    _, recorded = golden.load(small_artifact / made.golden.path)
    outputs = {name: value.astype(np.float64) for name, value in recorded.items()}
    flat, across = {}, {}
    for name, expected in outputs.items():
        axes = tuple(range(1, expected.ndim))
        size = np.sqrt(np.square(expected).sum(axes, keepdims=True))
        noise = np.random.default_rng(0).standard_normal(expected.shape)
        noise -= expected * (noise * expected).sum(axes, keepdims=True) / size**2
        noise /= np.sqrt(np.square(noise).sum(axes, keepdims=True))
        flat[name] = expected + bound * size / math.sqrt(expected[0].size)
        across[name] = expected + bound * size * noise
    for actual in (flat, across):
        for table in TABLES.values():
            assert overall(judge(actual, outputs, table[key])) is Status.PASSED


@pytest.mark.parametrize("precision", PRECISIONS.values(), ids=lambda precision: precision.name)
def test_every_precision_on_every_arithmetic_has_a_limit(precision: Precision) -> None:
    for arithmetic in ("fp32", "hf32", "fp16") if precision.name == "fp32" else (precision.limits,):
        assert (precision.limits, arithmetic) in STRICT


RECORDED = json.loads((Path(__file__).parents[3] / "benchmarks" / "results" / "limits.json").read_text())


@pytest.mark.parametrize("pair", STRICT, ids=" on ".join)
def test_every_strict_limit_stands_between_what_was_measured_clean_and_the_least_fault(pair: Pair) -> None:
    bounds, source = STRICT[pair].bounds, STRICT[pair].source
    found = RECORDED["limits"][".".join(pair)]
    low, high = found["clean"]
    fault = found["least_fault"]
    assert low <= high < bounds["vector_relative_error"] < fault["vector_relative_error"]
    assert found["clean_token_cosine_min"] > bounds.get("token_cosine_min", 0.0)
    assert found["bounds"] == bounds
    clean = f"{low:.1e}" if low == high else f"{low:.1e} to {high:.1e}"
    figures = clean, fault["what"], f"{fault['vector_relative_error']:.1e}"
    assert all(figure.replace("e-0", "e-") in source for figure in figures), figures
    assert ("synthetic weights" in source) == (pair != ("int8", "int8"))
    assert "DINOv2-small" in source
    assert ("simulated" in source) == (pair in (("fp32", "hf32"), ("fp32", "fp16"), ("int8", "int8")))
