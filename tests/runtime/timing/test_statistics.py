from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence

import numpy as np
import pytest

from vconv.runtime.timing.statistics import (
    LEAST_SAMPLES,
    SMALLEST_EFFECT,
    TimeRatio,
    block_length,
    compare_paired,
    drawn_blocks,
    median_interval,
)


def noise(count: int, seed: int, resemblance: float = 0.0, spread: float = 0.03) -> list[float]:
    """Return times about 1 whose logarithms resemble their predecessors: a first-order autoregression."""
    draw = random.Random(seed)
    value, found = 0.0, []
    for _ in range(count + 50):
        value = resemblance * value + draw.gauss(0, spread * math.sqrt(1 - resemblance**2))
        found.append(math.exp(value))
    return found[50:]


def bootstrapped(
    samples: Sequence[float], length: int, draws: int = 4000, cuts: int = 40
) -> tuple[float, float]:
    """Return the interval of the median as a plain reading of the textbook has it: lists and a loop."""
    draw, found = random.Random(7), []
    for _ in range(draws):
        series: list[float] = []
        while len(series) < len(samples):
            start = draw.randint(0, len(samples) - length)
            series += samples[start : start + length]
        found.append(statistics.median(series[: len(samples)]))
    quantiles = statistics.quantiles(found, n=cuts, method="inclusive")
    return quantiles[0], quantiles[-1]


@pytest.mark.parametrize(("count", "length"), [(27, 3), (30, 3), (64, 4), (100, 5), (1000, 10)])
def test_a_block_is_as_long_as_the_cube_root(count: int, length: int) -> None:
    assert block_length(count) == length


@pytest.mark.parametrize("count", [30, 50, 99, 100])
def test_a_draw_is_made_of_runs_of_neighbours_from_anywhere(count: int) -> None:
    length = block_length(count)
    places = drawn_blocks(count, 5000, np.random.default_rng(1))
    assert places.shape == (5000, count)
    assert (places.min(), places.max()) == (0, count - 1)
    steps = np.diff(places, axis=1)
    within = [place for place in range(count - 1) if (place + 1) % length]
    assert (steps[:, within] == 1).all()
    assert (steps[:, length - 1 :: length] != 1).mean() > 0.9
    starts = np.bincount(places[:, 0], minlength=count)
    assert starts[count - length + 1 :].sum() == 0
    assert starts[: count - length + 1].min() > 0.4 * 5000 / (count - length + 1)


@pytest.mark.parametrize("resemblance", [0.0, 0.5])
@pytest.mark.parametrize("count", [30, 60, 100])
def test_the_interval_is_that_of_the_textbook(count: int, resemblance: float) -> None:
    samples = noise(count, count, resemblance)
    assert median_interval(samples) == pytest.approx(bootstrapped(samples, block_length(count)), abs=2e-3)


def test_the_interval_of_equal_samples_is_a_point() -> None:
    assert median_interval([0.25] * 40) == (0.25, 0.25)


def test_the_interval_is_the_same_every_time() -> None:
    samples = noise(100, 3)
    assert median_interval(samples) == median_interval(list(samples))


def test_the_interval_goes_with_the_unit() -> None:
    samples = noise(100, 3)
    low, high = median_interval(samples) or (0, 0)
    assert median_interval([1000 * sample for sample in samples]) == pytest.approx((1000 * low, 1000 * high))


@pytest.mark.parametrize(
    ("count", "withheld"), [(1, True), (LEAST_SAMPLES - 1, True), (LEAST_SAMPLES, False)]
)
def test_too_few_samples_have_no_interval(count: int, withheld: bool) -> None:
    assert (median_interval(noise(count, 5)) is None) is withheld


def covered(resemblance: float) -> int:
    """Return how many of a hundred intervals hold the true median, 1."""
    found = [median_interval(noise(100, seed, resemblance)) or (0, 0) for seed in range(100)]
    return sum(low <= 1.0 <= high for low, high in found)


def test_nearly_all_intervals_hold_the_true_median_also_where_neighbours_resemble_each_other() -> None:
    assert covered(0.0) >= 90
    assert covered(0.2) >= 88
    singles = [bootstrapped(noise(100, seed, 0.5), 1, 200) for seed in range(100)]
    assert covered(0.5) >= 83 > sum(low <= 1.0 <= high for low, high in singles)


def test_a_comparison_is_the_median_of_the_ratios_of_each_round() -> None:
    first, second = noise(101, 1), noise(101, 2)
    found = compare_paired(first, second)
    assert found is not None
    expected = statistics.median(math.log(b / a) for a, b in zip(first, second, strict=True))
    assert found.ratio == pytest.approx(math.exp(expected))
    logarithms = [math.log(b / a) for a, b in zip(first, second, strict=True)]
    low, high = bootstrapped(logarithms, block_length(101), draws=8000, cuts=200)
    assert found.interval == pytest.approx((math.exp(low), math.exp(high)), abs=3e-3)
    assert found.rounds == 101


def test_what_slows_both_variants_of_a_round_changes_no_comparison() -> None:
    first, second = noise(100, 1), noise(100, 2)
    weather = [1 + 5 * (place % 7 == 0) + place / 20 for place in range(100)]
    calm, rough = (
        compare_paired(
            [a * w for a, w in zip(first, wind, strict=True)],
            [b * w for b, w in zip(second, wind, strict=True)],
        )
        for wind in ([1.0] * 100, weather)
    )
    assert calm is not None and rough is not None
    assert rough.ratio == pytest.approx(calm.ratio)
    assert rough.interval == pytest.approx(calm.interval)


def test_a_few_rounds_in_which_one_variant_suffered_move_nothing_much() -> None:
    first, second = noise(100, 1), noise(100, 2)
    found = compare_paired(
        first, [100 * sample if place % 20 == 3 else sample for place, sample in enumerate(second)]
    )
    assert found is not None
    assert found.ratio == pytest.approx(1.0, abs=0.01)
    assert not found.different


def test_rounds_that_one_variant_sat_out_do_not_count() -> None:
    first, second = noise(100, 1), noise(100, 2)
    assert compare_paired(first[:40], second) == compare_paired(first[:40], second[:40])
    assert compare_paired(first, second[:40]) == compare_paired(first[:40], second[:40])


@pytest.mark.parametrize(("rounds", "withheld"), [(LEAST_SAMPLES - 1, True), (LEAST_SAMPLES, False)])
def test_too_few_rounds_are_not_compared(rounds: int, withheld: bool) -> None:
    assert (compare_paired(noise(rounds, 1), noise(100, 2)) is None) is withheld


@pytest.mark.parametrize("resemblance", [0.0, 0.3])
def test_a_variant_is_hardly_ever_told_apart_from_itself(resemblance: float) -> None:
    found = [compare_paired(noise(100, s, resemblance), noise(100, s + 999, resemblance)) for s in range(60)]
    assert sum(one is not None and one.different for one in found) <= 1


@pytest.mark.parametrize("factor", [1.1, 1 / 1.1])
@pytest.mark.parametrize("rounds", [LEAST_SAMPLES, 100])
def test_a_tenth_more_is_found(rounds: int, factor: float) -> None:
    for seed in range(20):
        found = compare_paired(noise(rounds, seed), [factor * sample for sample in noise(rounds, seed + 999)])
        assert found is not None and found.different
        assert found.ratio == pytest.approx(factor, rel=0.05)


BEYOND, WITHIN = 1 + 1.01 * SMALLEST_EFFECT, 1 + 0.99 * SMALLEST_EFFECT


@pytest.mark.parametrize(
    ("ratio", "interval", "different"),
    [
        (1.10, (1.05, 1.15), True),
        (0.90, (0.85, 0.95), True),
        (1.10, (0.99, 1.20), False),
        (0.90, (0.80, 1.01), False),
        (BEYOND, (1.01, 1.03), True),
        (WITHIN, (1.01, 1.03), False),
        (1 / BEYOND, (0.97, 0.99), True),
        (1 / WITHIN, (0.97, 0.99), False),
        (1.10, (1.0, 1.2), False),
    ],
)
def test_variants_differ_where_it_is_certain_and_where_it_matters(
    ratio: float, interval: tuple[float, float], different: bool
) -> None:
    assert TimeRatio(ratio, interval, 100).different is different
