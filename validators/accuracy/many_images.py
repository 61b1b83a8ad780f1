"""Agreement over many images: each image is judged by itself, and percentiles summarise them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vconv.types import Array, Arrays, Status
from vconv.validators.accuracy.limits import Limit
from vconv.validators.accuracy.metrics import METRICS
from vconv.validators.accuracy.verdicts import OutputVerdict, judge

PERCENTILES: Mapping[str, tuple[int, ...]] = {
    "cosine": (0, 1, 5, 50),
    "relative_error": (50, 90, 99, 100),
    "vector_relative_error": (50, 90, 99, 100),
}
"""By metric: the reported percentiles, among them the worst value."""
_TOP1, SHARE, _BEYOND = "top1_match", "share_of_limit", "beyond"
COLUMNS = (*PERCENTILES, _TOP1, SHARE, _BEYOND)
"""The values that are stored for one image and output, each a float64."""


def judge_images(actual: Arrays, expected: Arrays, limit: Limit) -> tuple[Array, list[tuple[str, ...]]]:
    """Judge a variant's outputs image by image.

    Args:
        actual: the variant's outputs (B, ...), by name.
        expected: the reference's.
        limit: the limit for each output of each image.

    Returns:
        float64 (B, outputs, columns), outputs in the order of ``expected``, and for each image the reason why
        it failed.
    """
    count = len(next(iter(expected.values())))
    rows = np.full((count, len(expected), len(COLUMNS)), np.nan)
    reasons = []
    for place in range(count):
        verdicts = judge(_image(actual, place), _image(expected, place), limit)
        for row, name in zip(rows[place], expected, strict=True):
            row[:] = _row(name, verdicts[name], limit)
        failed = (f"{name}: {reason}" for name, verdict in verdicts.items() for reason in verdict.reasons)
        reasons.append(tuple(failed))
    return rows, reasons


def _image(outputs: Arrays, place: int) -> Arrays:
    return {name: value[place : place + 1] for name, value in outputs.items()}


def _row(name: str, verdict: OutputVerdict, limit: Limit) -> list[float]:
    figures = {
        **verdict.metrics,
        SHARE: _share(name, verdict, limit),
        _BEYOND: float(verdict.status is Status.FAILED),
    }
    return [figures.get(column, np.nan) for column in COLUMNS]


def _share(name: str, verdict: OutputVerdict, limit: Limit) -> float:
    """Return the greatest share of a bound that is used up; infinite if the output could not be compared."""
    if not verdict.metrics:
        return np.inf
    shares = [0.0]
    for key, bound in limit.bounds.items():
        if METRICS[key].applies_to(name):
            used, room = verdict.metrics[key], bound
            if METRICS[key].better == "high":
                used, room = 1.0 - used, 1.0 - bound
            shares.append(used / room if room > 0 else np.inf if used > 0 else 0.0)
    return max(shares)


def refused_images(count: int, outputs: int) -> Array:
    """Return the result of :func:`judge_images` for images that an engine refuses: none could be compared."""
    rows = np.full((count, outputs, len(COLUMNS)), np.nan)
    rows[:, :, COLUMNS.index(SHARE)] = np.inf
    rows[:, :, COLUMNS.index(_BEYOND)] = 1.0
    return rows


def summary(rows: Array, outputs: Sequence[str], limit: Limit | None) -> dict[str, dict[str, Any]]:
    """Summarise the results of a variant on all images, output by output.

    A percentile is exact, over every image that could be compared: the value at rank p/100 x (N - 1) of the
    sorted values, interpolated linearly between two neighbours (numpy's method ``linear``).

    Args:
        rows: (N, outputs, columns), as :func:`judge_images` returns them.
        outputs: the names of the outputs.
        limit: the limit for each image; None if the variant was measured but not judged.
    """
    bound = limit.bounds.get("vector_relative_error") if limit else None
    found = {}
    for place, name in enumerate(outputs):
        compared = np.flatnonzero(~np.isnan(column(rows, place, "cosine")))
        row: dict[str, Any] = {"compared": len(compared)}
        for metric, shares in PERCENTILES.items():
            values = column(rows, place, metric)[compared]
            figures = np.percentile(values, shares) if len(values) else [np.nan] * len(shares)
            row[metric] = {f"p{share}": float(value) for share, value in zip(shares, figures, strict=True)}
        beyond = int(column(rows, place, _BEYOND).sum())
        found[name] = row | {"limit": bound, "beyond": beyond if limit else None}
    return found


def column(rows: Array, output: int, name: str) -> Array:
    """Return one value of one output for all images, (N,), in memory."""
    return np.array(rows[:, output, COLUMNS.index(name)])


def top1_agreement(rows: Array, outputs: Sequence[str]) -> float | None:
    """Return the share of images whose greatest logit is the reference's; None without a classifier.

    An image that could not be compared does not agree.
    """
    if "logits" not in outputs:
        return None
    return float(np.nan_to_num(column(rows, list(outputs).index("logits"), _TOP1)).mean())


def worst_of(rows: Array) -> tuple[Array, Array]:
    """Return for each image the share of the limit at its worst output, and the output's index, (N,) each."""
    shares = np.array(rows[:, :, COLUMNS.index(SHARE)])
    return shares.max(axis=1), shares.argmax(axis=1)
