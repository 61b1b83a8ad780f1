"""Confidence intervals of medians, and whether two variants differ: bootstraps over blocks of rounds.

Successive samples on a real machine are correlated: its frequency, its caches and its other work change more
slowly than one run lasts. A bootstrap that draws single samples assumes that they are independent, and its
intervals are too narrow. The moving-block bootstrap draws blocks of successive samples instead (H. R.
Künsch, "The jackknife and the bootstrap for general stationary observations", Annals of Statistics 17, 1989;
B. Efron and R. J. Tibshirani, "An Introduction to the Bootstrap", 1993, section 8.6). All draws use one fixed
seed, so the same samples always give the same interval. No dependency has this bootstrap: SciPy's bootstrap
draws single samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vconv.types import Array

LEAST_SAMPLES = 30
"""With fewer samples, nothing is inferred: there would be too few blocks to draw from."""
SMALLEST_EFFECT = 0.02
"""Two variants count as different only if their times differ by more than this share."""
RESAMPLES = 2000
CONFIDENCE = 0.95
"""Confidence of a median's interval."""
COMPARED_CONFIDENCE = 0.99
"""Confidence of a ratio's interval. It is higher because short series of blocks give too narrow intervals."""
_SEED = 0

Interval = tuple[float, float]


def block_length(count: int) -> int:
    """Return how many successive samples are drawn together: l = n^(1/3), rounded.

    n^(1/3) is the rate at which the best length for a variance grows (Künsch 1989; P. Hall, J. Horowitz and
    B. Jing, "On blocking rules for the bootstrap with dependent data", Biometrika 82, 1995). Runs of 10 ms on
    two shared cores had an autocorrelation of 0.2, which these blocks cover. With longer blocks, there would
    be too few blocks to draw from.
    """
    return round(math.cbrt(count))


def drawn_blocks(count: int, draws: int, random: np.random.Generator) -> Array:
    """Draw series of ``count`` indices by moving blocks.

    With blocks of l indices, each series consists of ceil(count / l) blocks, whose starts are uniform over
    0 .. count - l. Each series is cut to ``count`` indices.

    Returns:
        int64 (draws, count).
    """
    length = block_length(count)
    starts = random.integers(0, count - length + 1, (draws, -(-count // length)))
    return (starts[:, :, None] + np.arange(length)).reshape(draws, -1)[:, :count]


def medians(samples: Array, random: np.random.Generator) -> Array:
    """Return the medians of :data:`RESAMPLES` series drawn from samples, which must be in measured order."""
    return np.median(samples[drawn_blocks(len(samples), RESAMPLES, random)], axis=1)


def percentile_interval(estimates: Array, confidence: float) -> Interval:
    """Return the central interval of bootstrap estimates (Efron and Tibshirani 1993, section 13.3).

    With a confidence of 0.95, the interval holds the middle 95 % of the estimates.
    """
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(estimates, [tail, 100 - tail])
    return float(low), float(high)


def median_interval(samples: Sequence[float]) -> Interval | None:
    """Return the 95 % interval of a median; None under :data:`LEAST_SAMPLES`.

    Args:
        samples: the samples, in the order in which they were taken.
    """
    if len(samples) < LEAST_SAMPLES:
        return None
    return percentile_interval(medians(np.array(samples), np.random.default_rng(_SEED)), CONFIDENCE)


@dataclass(frozen=True)
class TimeRatio:
    """How the time of a second variant relates to the time of a first variant.

    Args:
        ratio: the second variant's time over the first variant's time, from the median over rounds.
        interval: the 99 % interval of the ratio.
        rounds: the number of rounds in which both ran.
    """

    ratio: float
    interval: Interval
    rounds: int

    @property
    def different(self) -> bool:
        """Whether the variants differ: the interval excludes 1, and the ratio is large enough.

        A ratio is large enough above 1 + :data:`SMALLEST_EFFECT`, or below the reciprocal of this sum.
        """
        low, high = self.interval
        return not low <= 1.0 <= high and abs(math.log(self.ratio)) > math.log1p(SMALLEST_EFFECT)


def compare_paired(first: Sequence[float], second: Sequence[float]) -> TimeRatio | None:
    """Compare two variants that were timed in the same rounds.

    The estimate is exp(median over rounds r of log(second[r] / first[r])). A slow-down of a whole round
    cancels in its ratio, and a round in which only one variant was slowed down moves the median by at most
    one rank. The interval comes from a moving-block bootstrap over rounds.

    Args:
        first: the first variant's samples; the sample at index r is from round r.
        second: the second variant's samples. If one variant has fewer samples, it skipped the last rounds,
            and these rounds do not count.

    Returns:
        The comparison; None if the variants share fewer than :data:`LEAST_SAMPLES` rounds.
    """
    rounds = min(len(first), len(second))
    if rounds < LEAST_SAMPLES:
        return None
    logarithms = np.log(np.array(second[:rounds]) / np.array(first[:rounds]))
    estimates = medians(logarithms, np.random.default_rng(_SEED))
    low, high = np.exp(percentile_interval(estimates, COMPARED_CONFIDENCE))
    return TimeRatio(float(np.exp(np.median(logarithms))), (float(low), float(high)), rounds)
