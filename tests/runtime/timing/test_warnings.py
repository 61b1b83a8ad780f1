from __future__ import annotations

import random
import statistics

import numpy as np
import pytest

from vconv.runtime.timing.statistics import LEAST_SAMPLES
from vconv.runtime.timing.warnings import DRIFT, MANY_OUTLIERS, OUTLYING, WIDE, thirds, warnings_about


def steady(count: int = 100, seed: int = 1, spread: float = 0.02) -> list[float]:
    draw = random.Random(seed)
    return [0.010 * (1 + draw.gauss(0, spread)) for _ in range(count)]


def kinds(samples: list[float]) -> list[str]:
    return [sentence.split(":")[0] for sentence in warnings_about(samples)]


def test_a_steady_measurement_has_nothing_against_it() -> None:
    assert [warnings_about(steady(seed=seed)) for seed in range(50)] == [[]] * 50


@pytest.mark.parametrize("count", [1, 10, LEAST_SAMPLES - 1])
def test_too_few_samples_are_said_and_nothing_else_is_inferred(count: int) -> None:
    samples = [0.01 * (1 + place) for place in range(count)]
    assert warnings_about(samples) == [
        f"too few samples: {count}, where {LEAST_SAMPLES} are the least to infer from"
    ]


@pytest.mark.parametrize("factor", [1.2, 0.8])
def test_a_last_third_that_takes_longer_or_shorter_is_drift(factor: float) -> None:
    samples = steady(99)
    drifted = samples[:66] + [factor * sample for sample in samples[66:]]
    (sentence,) = (one for one in warnings_about(drifted) if one.startswith("drift"))
    ratio = statistics.median(drifted[66:]) / statistics.median(drifted[:33])
    assert f"took {ratio:.2f} times as long as the first" in sentence
    found, (low, high) = thirds(np.array(drifted))
    assert found == pytest.approx(ratio)
    assert low < ratio < high and f"({low:.2f} to {high:.2f})" in sentence


def test_a_drift_that_does_not_matter_is_not_said() -> None:
    samples = steady(99, spread=0.001)
    within, beyond = 1 + 0.8 * DRIFT, 1 + 1.2 * DRIFT
    assert "drift" not in kinds(samples[:66] + [within * sample for sample in samples[66:]])
    assert "drift" in kinds(samples[:66] + [beyond * sample for sample in samples[66:]])


def test_a_difference_that_chance_explains_is_no_drift() -> None:
    draw = random.Random(4)
    wild = [[draw.choice([0.01, 0.02]) for _ in range(60)] for _ in range(40)]
    assert sum("drift" in kinds(samples) for samples in wild) <= 4


def test_one_slow_run_in_a_third_is_no_drift() -> None:
    samples = steady()
    samples[-1] *= 50
    assert kinds(samples) == []


@pytest.mark.parametrize("more", [0, 1])
def test_outliers_are_counted_beyond_the_median_and_five_deviations(more: int) -> None:
    samples = steady()
    count = int(MANY_OUTLIERS * 100) + more
    for place in range(count):
        samples[9 * place] = 0.05
    middle = statistics.median(samples)
    deviation = 1.4826 * statistics.median(abs(sample - middle) for sample in samples)
    bound = middle + OUTLYING * deviation
    assert sum(sample > bound for sample in samples) == count
    expected = [f"outliers: {count} of 100 samples are above {1e3 * bound:.3g} ms"] if more else []
    assert [one for one in warnings_about(samples) if one.startswith("outliers")] == expected


@pytest.mark.parametrize(("share", "said"), [(0.9 * WIDE, False), (1.1 * WIDE, True)])
def test_a_wide_spread_is_said_with_its_width(share: float, said: bool) -> None:
    # Even steps from 1 - share to 1 + share have their quartiles the share apart.
    samples = [1 - share + 2 * share * place / 200 for place in range(201)]
    random.Random(2).shuffle(samples)
    first, middle, third = statistics.quantiles(samples, n=4, method="inclusive")
    assert (third - first) / middle == pytest.approx(share)
    expected = [f"wide spread: the quartiles are {share:.0%} of the median apart"] if said else []
    assert warnings_about(samples) == expected


def test_equal_samples_have_nothing_against_them() -> None:
    assert warnings_about([0.25] * 60) == []
