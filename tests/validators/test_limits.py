from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from vconv.errors import UnknownNameError
from vconv.manifest import Manifest
from vconv.types import Array, Status
from vconv.validators import golden
from vconv.validators.accuracy import judge, overall
from vconv.validators.limits import LEVELS, STRICT, find_limit
from vconv.validators.metrics import METRICS

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
    card = find_limit("card", *key).bounds
    assert made.golden
    _, outputs = golden.load(small_artifact / made.golden.file)
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
    _, recorded = golden.load(small_artifact / made.golden.file)
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
        for level in LEVELS:
            assert overall(judge(actual, outputs, find_limit(level, *key))) is Status.PASSED


@pytest.mark.parametrize("key", STRICT)
def test_strict_is_the_table(key: tuple[str, str]) -> None:
    assert find_limit("strict", *key) is STRICT[key]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("key", STRICT)
def test_every_limit_bounds_known_metrics_and_says_where_it_comes_from(
    key: tuple[str, str], level: str
) -> None:
    limit = find_limit(level, *key)
    assert limit.bounds and set(limit.bounds) <= set(METRICS)
    assert limit.source
    for metric, bound in limit.bounds.items():
        assert math.isfinite(bound)
        assert 0 < bound < 1
        assert (bound > 0.9) == (METRICS[metric].better == "high")


@pytest.mark.parametrize("key", STRICT)
def test_every_limit_bounds_the_vector_relative_error_that_reports_show(key: tuple[str, str]) -> None:
    for level in LEVELS:
        assert "vector_relative_error" in find_limit(level, *key).bounds


def test_the_card_is_what_the_source_documents_use() -> None:
    bounds = find_limit("card", "fp32", "fp32").bounds
    assert bounds == {"vector_relative_error": 0.01, "relative_error": 0.01, "cosine": 0.999}


def test_less_precision_is_never_held_to_a_tighter_limit() -> None:
    bounds = [limit.bounds["vector_relative_error"] for limit in STRICT.values()]
    assert bounds == sorted(bounds)


@pytest.mark.parametrize("level", ["lax", "", "Strict"])
def test_an_unknown_level_lists_the_choices(level: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        find_limit(level, "fp32", "fp32")
    message = str(caught.value)
    assert repr(level) in message
    assert "strict" in message
