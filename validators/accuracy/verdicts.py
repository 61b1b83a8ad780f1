"""Accuracy: a variant's outputs are compared with the reference's and judged by limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vconv.figures import told_apart
from vconv.types import Arrays, Status
from vconv.validators.accuracy import overflow
from vconv.validators.accuracy.limits import Limit
from vconv.validators.accuracy.metrics import METRICS, measure


@dataclass(frozen=True)
class OutputVerdict:
    """The verdict on one output of a variant.

    Args:
        status: passed or failed.
        shape: its shape; empty if it is missing.
        metrics: every metric, the worst over the images; empty if it could not be compared.
        reasons: why it failed; empty if it passed.
    """

    status: Status
    shape: tuple[int, ...]
    metrics: Mapping[str, float]
    reasons: tuple[str, ...] = ()


def judge(actual: Arrays, expected: Arrays, limit: Limit) -> dict[str, OutputVerdict]:
    """Judge a variant's outputs.

    Conditions that would make a comparison meaningless are checked first: missing or extra outputs, shapes,
    types, NaN and Inf. The remaining outputs are measured and compared with the limit. An overflow on an NPU
    that saturates is finite, so that it is found by its value: see :mod:`vconv.validators.accuracy.overflow`.

    Args:
        actual: the variant's outputs (B, ...), by name.
        expected: the reference's.
        limit: the bounds on the metrics.

    Returns:
        A verdict for each output that the variant or the reference has.
    """
    verdicts = {name: _judge_one(name, actual.get(name), expected[name], limit) for name in expected}
    for name in actual.keys() - expected.keys():
        shape = tuple(actual[name].shape)
        verdicts[name] = OutputVerdict(Status.FAILED, shape, {}, ("the reference has no such output",))
    return verdicts


def judge_runs(runs: Sequence[Arrays], expected: Arrays, limit: Limit) -> dict[str, OutputVerdict]:
    """Judge several runs on the same images, such as one by one and all at once; the worst counts.

    Args:
        runs: for each run, the variant's outputs (B, ...), by name.
        expected: see :func:`judge`.
        limit: see :func:`judge`.

    Returns:
        A verdict for each output, its metrics the worst over all runs and images.
    """
    verdicts = [judge(run, expected, limit) for run in runs]
    names = dict.fromkeys(name for run in verdicts for name in run)
    return {name: _worst([run[name] for run in verdicts if name in run]) for name in names}


def _worst(verdicts: list[OutputVerdict]) -> OutputVerdict:
    failed = [verdict for verdict in verdicts if verdict.status is Status.FAILED]
    measured = [verdict.metrics for verdict in verdicts if verdict.metrics]
    metrics = {key: METRICS[key].worst([found[key] for found in measured]) for key in (measured or [{}])[0]}
    return replace((failed or verdicts)[0], metrics=metrics)


def _judge_one(name: str, actual: np.ndarray | None, expected: np.ndarray, limit: Limit) -> OutputVerdict:
    if actual is None:
        return OutputVerdict(Status.FAILED, (), {}, ("the output is missing",))
    shape = tuple(actual.shape)
    reasons = []
    if shape != expected.shape:
        reasons.append(f"the shape is {list(shape)}, not {list(expected.shape)}")
    if actual.dtype != expected.dtype:
        reasons.append(f"the type is {actual.dtype}, not {expected.dtype}")
    for kind, array in (("variant", actual), ("reference", expected)):
        bad = int(array.size - np.isfinite(array).sum())
        if bad:
            reasons.append(f"the {kind} has {bad} NaN or Inf of {array.size} elements")
    if reasons:
        return OutputVerdict(Status.FAILED, shape, {}, tuple(reasons))
    metrics = measure(name, actual, expected)
    reasons += overflow.signs(actual, expected, limit.bounds.get("vector_relative_error"))
    for key, bound in limit.bounds.items():
        if METRICS[key].applies_to(name) and not METRICS[key].within(metrics[key], bound):
            reasons.append("{} is {}, the limit {}".format(key, *told_apart(metrics[key], bound)))
    return OutputVerdict(Status.FAILED if reasons else Status.PASSED, shape, metrics, tuple(reasons))


def overall(verdicts: Mapping[str, OutputVerdict]) -> Status:
    """Return failed if any output failed, incomplete if there is no output, else passed."""
    if not verdicts:
        return Status.INCOMPLETE
    failed = any(verdict.status is Status.FAILED for verdict in verdicts.values())
    return Status.FAILED if failed else Status.PASSED
