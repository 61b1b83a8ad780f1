"""Our figures beside the published formulas, written here once more as msprobe computes them: in float32."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from vconv.types import Array
from vconv.validators.msprobe import figures
from vconv.validators.msprobe.figures import FIGURES, SCALAR, ZEROS, compare

CHANCE = np.random.default_rng(5)
GOLDEN = CHANCE.normal(size=(3, 40)).astype(np.float32)
TARGET = (GOLDEN * (1 + 1e-2 * CHANCE.normal(size=GOLDEN.shape)) + 1e-3).astype(np.float32)


def relative(x: Array, y: Array) -> Array:
    return np.array([abs(a / b - 1) if b else 0 for a, b in zip(x.ravel(), y.ravel(), strict=True)])


def distribution(values: Array) -> Array:
    scaled = (values - values.min()) / (values.max() - values.min())
    scaled[scaled < 2**-23] = 2**-23
    return scaled / scaled.sum()


FORMULAS: dict[str, Callable[[Array, Array], float]] = {
    "CosineSimilarity": lambda x, y: np.vdot(x, y) / (np.linalg.norm(x) * np.linalg.norm(y)),
    "MaxAbsoluteError": lambda x, y: np.max(np.abs(x - y)),
    "AccumulatedRelativeError": lambda x, y: relative(x, y).sum(),
    "RelativeEuclideanDistance": lambda x, y: np.linalg.norm(x - y) / np.linalg.norm(y),
    "KullbackLeiblerDivergence": lambda x, y: np.sum(
        distribution(x) * (np.log(distribution(x)) - np.log(distribution(y)))
    ),
    "MeanAbsoluteError": lambda x, y: np.mean(np.abs(x - y)),
    "RootMeanSquareError": lambda x, y: np.linalg.norm(x - y) / math.sqrt(x.size),
    "MaxRelativeError": lambda x, y: relative(x, y).max(),
    "MeanRelativeError": lambda x, y: relative(x, y).mean(),
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("zeros", [0, 5], ids=["no_zeros", "zeros"])
@pytest.mark.parametrize("block", [7, 2**17], ids=["blocks", "one_block"])
def test_a_figure_is_that_of_the_published_formula(
    name: str, zeros: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "_BLOCK", block)
    golden = GOLDEN.copy()
    golden[0, :zeros] = 0
    expected = FORMULAS[name](TARGET.astype(np.float64), golden.astype(np.float64))
    found = compare(TARGET, golden).values[name]
    assert found == pytest.approx(expected, rel=1e-12)
    assert expected > 0


def test_the_columns_are_in_the_order_of_the_table() -> None:
    assert list(FIGURES) == [
        *("CosineSimilarity", "MaxAbsoluteError", "AccumulatedRelativeError", "RelativeEuclideanDistance"),
        *("KullbackLeiblerDivergence", "StandardDeviation", "MeanAbsoluteError", "RootMeanSquareError"),
        *("MaxRelativeError", "MeanRelativeError"),
    ]


def test_the_spread_of_a_tensor_in_blocks_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "_BLOCK", 7)
    means, deviations = (TARGET.mean(), GOLDEN.mean()), (TARGET.std(), GOLDEN.std())
    pairs = [f"({mean:.3f};{deviation:.3f})" for mean, deviation in zip(means, deviations, strict=True)]
    assert compare(TARGET, GOLDEN).printed()["StandardDeviation"] == ",".join(pairs)


def test_figures_are_printed_with_six_decimals_and_the_spread_with_three() -> None:
    found = compare(np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0]))
    assert found.printed() == {
        "CosineSimilarity": "0.991460",  # 17 / sqrt(21 * 14)
        "MaxAbsoluteError": "1.000000",
        "AccumulatedRelativeError": "0.333333",
        "RelativeEuclideanDistance": "0.267261",  # 1 / sqrt(14)
        # [0, 1/3, 1] and [0, 1/2, 1] scaled by their sums: 3/4 log(9/8) + 1/4 log(3/4)
        "KullbackLeiblerDivergence": "0.016417",
        "StandardDeviation": "(2.333;1.247),(2.000;0.816)",
        "MeanAbsoluteError": "0.333333",
        "RootMeanSquareError": "0.577350",
        "MaxRelativeError": "0.333333",
        "MeanRelativeError": "0.111111",
    }


ZERO, ONE = np.zeros(3, np.float32), np.ones(3, np.float32)


WITHOUT_DIRECTION: dict[str, tuple[Array, Array, float | None, float | None, str]] = {
    "zeros": (ZERO, ZERO, 1.0, 0.0, ""),
    "target_zero": (ZERO, ONE, None, 1.0, ZEROS),
    "golden_zero": (ONE, ZERO, None, 0.0, ZEROS),
    "scalar": (ONE[:1], -ONE[:1], 1.0, 2.0, SCALAR),
    "empty": (ZERO[:0], ZERO[:0], None, None, "the tensors have no elements"),
}


@pytest.mark.parametrize("case", WITHOUT_DIRECTION)
def test_tensors_without_a_direction_have_the_figures_that_msprobe_gives(case: str) -> None:
    target, golden, cosine, relative_l2, reason = WITHOUT_DIRECTION[case]
    found = compare(target, golden)
    assert (found.values["CosineSimilarity"], found.reason) == (cosine, reason)
    assert found.values["RelativeEuclideanDistance"] == relative_l2


@pytest.mark.parametrize(("wrong", "finite"), [(np.nan, False), (np.inf, False), (1.0, True)])
def test_a_target_that_is_not_finite_is_seen(wrong: float, finite: bool) -> None:
    target = TARGET.copy()
    target[1, 2] = wrong
    found = compare(target, GOLDEN)
    assert found.finite == finite
    assert finite == (found.printed()["CosineSimilarity"] != "nan")


def test_truth_values_have_a_cosine_and_a_distance_alone() -> None:
    found = compare(np.array([True, False]), np.array([True, True])).printed()
    assert {name for name, cell in found.items() if cell != "NaN"} == {
        "CosineSimilarity",
        "RelativeEuclideanDistance",
    }
