"""Warnings about a measurement, found in its samples. Each warning is one short sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from vconv.runtime.timing.statistics import CONFIDENCE, LEAST_SAMPLES, Interval, medians, percentile_interval
from vconv.types import Array

DRIFT = 0.05
"""The last third of the samples must differ from the first third by more than this share for a warning."""
OUTLYING = 5.0
"""A sample is an outlier above the median plus this many standard deviations, as the MAD estimates them."""
MANY_OUTLIERS = 0.1
"""A greater share of outliers gives a warning: on two idle cores, 100 runs of 10 ms had up to 11 outliers."""
WIDE = 0.1
"""A greater spread gives a warning: the first of the two limits of torch.utils.benchmark."""
_NORMAL = 1.4826
"""A normal distribution's standard deviation over its MAD: 1 / (75th percentile of the standard normal)."""
_SEED = 0


def warnings_about(samples: Sequence[float]) -> list[str]:
    """Return warnings that a reader should know before trusting a measurement.

    Args:
        samples: seconds, in the order in which they were taken.

    Returns:
        One sentence per warning; an empty list if there are no warnings.
    """
    values = np.array(samples)
    if len(values) < LEAST_SAMPLES:
        return [f"too few samples: {len(values)}, where {LEAST_SAMPLES} are the least to infer from"]
    return [sentence for look in (_drift, _outliers, _spread) if (sentence := look(values))]


def thirds(values: Array) -> tuple[float, Interval]:
    """Return median(last third) / median(first third), and the 95 % interval of this ratio.

    The bootstrap resamples each third separately by moving blocks: see
    :mod:`vconv.runtime.timing.statistics`.
    """
    third = len(values) // 3
    first, last = values[:third], values[-third:]
    random = np.random.default_rng(_SEED)
    interval = percentile_interval(medians(last, random) / medians(first, random), CONFIDENCE)
    return float(np.median(last) / np.median(first)), interval


def _drift(values: Array) -> str:
    ratio, (low, high) = thirds(values)
    if low <= 1.0 <= high or abs(math.log(ratio)) <= math.log1p(DRIFT):
        return ""
    return f"drift: the last third took {ratio:.2f} times as long as the first ({low:.2f} to {high:.2f})"


def _outliers(values: Array) -> str:
    """Warn of samples above m + 5 * 1.4826 * MAD, with m the median and MAD = median |x - m|."""
    middle = np.median(values)
    bound = middle + OUTLYING * _NORMAL * np.median(np.abs(values - middle))
    count = int(np.sum(values > bound))
    if count <= MANY_OUTLIERS * len(values):
        return ""
    return f"outliers: {count} of {len(values)} samples are above {1e3 * bound:.3g} ms"


def _spread(values: Array) -> str:
    """Warn of a wide distance between the quartiles, IQR = q75 - q25, as a share of the median."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    share = float((high - low) / middle)
    return f"wide spread: the quartiles are {share:.0%} of the median apart" if share > WIDE else ""
