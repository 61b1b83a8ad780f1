"""Agreement over many images, against plain numpy over whole arrays."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vconv.types import Array
from vconv.validators.accuracy.limits import CARD, STRICT, UNLIMITED, Limit
from vconv.validators.accuracy.many_images import (
    COLUMNS,
    column,
    judge_images,
    refused_images,
    summary,
    top1_agreement,
    worst_of,
)

OUTPUTS = ("pooled", "patches", "logits")
IMAGES = 37


def outputs(seed: int) -> dict[str, Array]:
    generator = np.random.Generator(np.random.PCG64(seed))
    shapes = {"pooled": (8,), "patches": (5, 8), "logits": (4,)}
    return {
        name: generator.standard_normal((IMAGES, *shape)).astype(np.float32) for name, shape in shapes.items()
    }


@pytest.fixture
def expected() -> dict[str, Array]:
    return outputs(1)


@pytest.fixture
def actual(expected: dict[str, Array]) -> dict[str, Array]:
    return {name: value + 0.3 * outputs(2)[name] for name, value in expected.items()}


def brute_force(name: str, actual: Array, expected: Array) -> dict[str, Array]:
    """Compute every figure over whole arrays, another way."""
    a, e = (value.reshape(IMAGES, -1).astype(np.float64) for value in (actual, expected))
    difference = a - e
    return {
        "cosine": (a * e).sum(1) / np.sqrt((a**2).sum(1) * (e**2).sum(1)),
        "relative_error": np.abs(difference).sum(1) / np.abs(e).sum(1),
        "vector_relative_error": np.sqrt((difference**2).sum(1) / (e**2).sum(1)),
        "top1_match": (a.argmax(1) == e.argmax(1)) if name == "logits" else np.full(IMAGES, np.nan),
    }


def percentile(values: Array, share: float) -> float:
    """Interpolate linearly between the values beside rank share/100 x (N - 1)."""
    ordered, rank = sorted(map(float, values)), share / 100 * (len(values) - 1)
    low = ordered[math.floor(rank)]
    return low + (rank % 1) * (ordered[math.ceil(rank)] - low)


def test_each_image_has_the_figures_of_brute_force(
    actual: dict[str, Array], expected: dict[str, Array]
) -> None:
    rows, reasons = judge_images(actual, expected, CARD)
    assert rows.shape == (IMAGES, 3, len(COLUMNS))
    beyond = np.zeros(IMAGES, bool)
    for place, name in enumerate(OUTPUTS):
        figures = brute_force(name, actual[name], expected[name])
        for key, values in figures.items():
            np.testing.assert_allclose(column(rows, place, key), values, rtol=1e-12)
        parts = [figures["vector_relative_error"] / 1e-2, figures["relative_error"] / 1e-2]
        share = np.max([*parts, (1 - figures["cosine"]) / 1e-3], axis=0)
        np.testing.assert_allclose(column(rows, place, "share_of_limit"), share, rtol=1e-9)
        np.testing.assert_array_equal(column(rows, place, "beyond"), share > 1)
        beyond |= share > 1
    assert [bool(reason) for reason in reasons] == beyond.tolist()
    assert beyond.all()


def test_the_summary_has_the_percentiles_of_brute_force(
    actual: dict[str, Array], expected: dict[str, Array]
) -> None:
    rows, _ = judge_images(actual, expected, CARD)
    found = summary(rows, OUTPUTS, CARD)
    for name in OUTPUTS:
        figures = brute_force(name, actual[name], expected[name])
        shares = {"cosine": (0, 1, 5, 50), "relative_error": (50, 90, 99, 100)}
        shares["vector_relative_error"] = shares["relative_error"]
        for metric, percents in shares.items():
            wanted = {f"p{share}": percentile(figures[metric], share) for share in percents}
            assert found[name][metric] == pytest.approx(wanted, rel=1e-12)
        over = (figures["vector_relative_error"] > 1e-2) | (figures["relative_error"] > 1e-2)
        over |= figures["cosine"] < 0.999
        assert (found[name]["compared"], found[name]["limit"], found[name]["beyond"]) == (
            IMAGES,
            1e-2,
            int(over.sum()),
        )
    matches = brute_force("logits", actual["logits"], expected["logits"])["top1_match"]
    assert top1_agreement(rows, OUTPUTS) == matches.mean() < 1.0


def test_one_image_that_is_wrong_is_not_averaged_away(expected: dict[str, Array]) -> None:
    actual = {name: value.copy() for name, value in expected.items()}
    actual["patches"][23, 4, 7] += 0.01
    rows, reasons = judge_images(actual, expected, STRICT["fp32", "fp32"])
    assert [place for place, reason in enumerate(reasons) if reason] == [23]
    assert reasons[23][0].startswith("patches: vector_relative_error is ")
    found = summary(rows, OUTPUTS, STRICT["fp32", "fp32"])
    assert {name: found[name]["beyond"] for name in OUTPUTS} == {"pooled": 0, "patches": 1, "logits": 0}
    shares, places = worst_of(rows)
    assert (int(shares.argmax()), int(places[23])) == (23, 1)


@pytest.mark.parametrize(
    ("metric", "bounds"),
    [("token_cosine_min", {"token_cosine_min": 0.9}), ("top1_match", {"top1_match": 1.0})],
)
def test_a_limit_on_any_metric_judges_images(
    metric: str, bounds: dict[str, float], expected: dict[str, Array]
) -> None:
    actual = {name: value.copy() for name, value in expected.items()}
    actual["patches"][3, 1] *= -1
    actual["logits"][3] *= -1
    rows, reasons = judge_images(actual, expected, Limit(bounds, "a test"))
    assert [place for place, reason in enumerate(reasons) if reason] == [3]
    assert metric in reasons[3][0]
    assert worst_of(rows)[0].argmax() == 3
    assert worst_of(rows)[0][3] > 1


def test_what_cannot_be_compared_is_beyond_every_limit_and_in_no_percentile(
    actual: dict[str, Array], expected: dict[str, Array]
) -> None:
    actual["logits"][5, 1] = np.nan
    actual["pooled"] = actual["pooled"][:, :-1]
    rows, reasons = judge_images(actual, expected, Limit({"cosine": 0.0}, "a test"))
    found = summary(rows, OUTPUTS, CARD)
    assert {name: (found[name]["compared"], found[name]["beyond"]) for name in OUTPUTS} == {
        "pooled": (0, IMAGES),
        "patches": (IMAGES, 0),
        "logits": (IMAGES - 1, 1),
    }
    assert np.isnan(found["pooled"]["cosine"]["p0"])
    assert reasons[0] == ("pooled: the shape is [1, 7], not [1, 8]",)
    assert reasons[5][1] == "logits: the variant has 1 NaN or Inf of 4 elements"
    matches = brute_force("logits", actual["logits"], expected["logits"])["top1_match"].copy()
    matches[5] = False
    assert top1_agreement(rows, OUTPUTS) == matches.mean()
    assert np.isinf(worst_of(rows)[0]).all()


def test_an_output_that_is_missing_or_too_many_fails_every_image(expected: dict[str, Array]) -> None:
    actual = {"pooled": expected["pooled"], "patches": expected["patches"], "more": expected["pooled"]}
    _, reasons = judge_images(actual, expected, UNLIMITED)
    assert reasons == [("logits: the output is missing", "more: the reference has no such output")] * IMAGES


def test_images_that_an_engine_refuses_count_as_beyond() -> None:
    found = summary(refused_images(4, 3), OUTPUTS, CARD)
    assert [(row["compared"], row["beyond"]) for row in found.values()] == [(0, 4)] * 3
    assert top1_agreement(refused_images(4, 3), OUTPUTS) == 0.0


def test_what_is_measured_but_not_judged_has_no_limit_and_nothing_beyond_it(
    actual: dict[str, Array], expected: dict[str, Array]
) -> None:
    rows, reasons = judge_images(actual, expected, UNLIMITED)
    assert reasons == [()] * IMAGES
    found = summary(rows, OUTPUTS, None)
    assert {(row["limit"], row["beyond"]) for row in found.values()} == {(None, None)}


def test_without_a_classifier_there_is_no_top_1(expected: dict[str, Array]) -> None:
    del expected["logits"]
    rows, _ = judge_images(expected, expected, CARD)
    assert top1_agreement(rows, OUTPUTS[:2]) is None
