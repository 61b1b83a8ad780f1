"""How sure a median is, and whether two variants differ: bootstraps over blocks of rounds.

Samples that follow each other on a real machine resemble each other: its frequency, its caches and its other
work change more slowly than one run lasts. A bootstrap that draws single samples takes them for independent,
and its intervals come out too narrow. The moving-block bootstrap draws runs of neighbours instead (H. R.
Künsch, "The jackknife and the bootstrap for general stationary observations", Annals of Statistics 17, 1989;
B. Efron and R. J. Tibshirani, "An Introduction to the Bootstrap", 1993, section 8.6). Every draw is from one
fixed seed: the same samples always give the same interval. No dependency has this bootstrap: SciPy's draws
single samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vconv.types import Array

LEAST_SAMPLES = 30
"""Samples under which nothing is inferred: there would be too few blocks to draw from."""
SMALLEST_EFFECT = 0.02
"""Share of a variant's time by which another one must differ from it to be called different."""
RESAMPLES = 2000
CONFIDENCE = 0.95
"""Of an interval of a median."""
COMPARED_CONFIDENCE = 0.99
"""Of an interval of a ratio: intervals from short series of blocks hold less than they promise."""
_SEED = 0

Interval = tuple[float, float]


def block_length(count: int) -> int:
    """Return how many neighbours are drawn together: l = n^(1/3), rounded.

    n^(1/3) is the rate at which the best length for a variance grows (Künsch 1989; P. Hall, J. Horowitz and
    B. Jing, "On blocking rules for the bootstrap with dependent data", Biometrika 82, 1995). Runs of 10 ms on
    two shared cores had an autocorrelation of 0.2, which these blocks cover; longer ones leave too few to
    draw from.
    """
    return round(math.cbrt(count))


def drawn_blocks(count: int, draws: int, random: np.random.Generator) -> Array:
    """Draw series of ``count`` places by moving blocks.

    With blocks of l places, each series is made of ceil(count / l) blocks, whose starts are uniform over
    0 .. count - l, and is cut to ``count``.

    Returns:
        int64 (draws, count).
    """
    length = block_length(count)
    starts = random.integers(0, count - length + 1, (draws, -(-count // length)))
    return (starts[:, :, None] + np.arange(length)).reshape(draws, -1)[:, :count]


def medians(samples: Array, random: np.random.Generator) -> Array:
    """Return the medians of :data:`RESAMPLES` series drawn from samples, in the order in which they came."""
    return np.median(samples[drawn_blocks(len(samples), RESAMPLES, random)], axis=1)


def percentile_interval(estimates: Array, confidence: float) -> Interval:
    """Return the middle of bootstrap estimates, such as 95 % (Efron and Tibshirani 1993, section 13.3)."""
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(estimates, [tail, 100 - tail])
    return float(low), float(high)


def median_interval(samples: Sequence[float]) -> Interval | None:
    """Return the 95 % interval of a median; None under :data:`LEAST_SAMPLES`.

    Args:
        samples: in the order in which they were taken.
    """
    if len(samples) < LEAST_SAMPLES:
        return None
    return percentile_interval(medians(np.array(samples), np.random.default_rng(_SEED)), CONFIDENCE)


@dataclass(frozen=True)
class Comparison:
    """How one variant's time relates to another's.

    Args:
        ratio: the second's over the first's, as the median over rounds has it.
        interval: of the ratio, 99 %.
        rounds: rounds in which both ran.
    """

    ratio: float
    interval: Interval
    rounds: int

    @property
    def different(self) -> bool:
        """Whether they are told apart: equality is outside the interval, and the ratio matters.

        A ratio matters beyond 1 + :data:`SMALLEST_EFFECT`, or under its reciprocal.
        """
        low, high = self.interval
        return not low <= 1.0 <= high and abs(math.log(self.ratio)) > math.log1p(SMALLEST_EFFECT)


def compare_paired(first: Sequence[float], second: Sequence[float]) -> Comparison | None:
    """Compare two variants that were timed in the same rounds.

    The estimate is exp(median over rounds r of log(second[r] / first[r])): what slows a whole round down
    falls out of its ratio, and a round that one variant alone suffered in moves a median by no more than one
    place. The interval is that of a moving-block bootstrap over rounds.

    Args:
        first: one variant's samples; the sample at place r is of round r.
        second: the other's. Where one has fewer, it sat out the last rounds, and they do not count.

    Returns:
        How they relate; None where they share fewer than :data:`LEAST_SAMPLES` rounds.
    """
    rounds = min(len(first), len(second))
    if rounds < LEAST_SAMPLES:
        return None
    logarithms = np.log(np.array(second[:rounds]) / np.array(first[:rounds]))
    estimates = medians(logarithms, np.random.default_rng(_SEED))
    low, high = np.exp(percentile_interval(estimates, COMPARED_CONFIDENCE))
    return Comparison(float(np.exp(np.median(logarithms))), (float(low), float(high)), rounds)
