"""Speed-up of a variant over torch in fp32 on the CPU of the same machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from vconv.runtime.engines.table import is_usual
from vconv.runtime.timing.statistics import LEAST_SAMPLES
from vconv.validators.report.document import Ranking
from vconv.validators.report.rows import LatencyRow, VariantRow

BASELINES = ("original-torch-fp32", "patched-torch-fp32")
"""Candidates for the baseline on the CPU: the first that was timed is used."""


def with_speed_ups(rows: Sequence[VariantRow], ranking: Ranking) -> tuple[tuple[VariantRow, ...], str]:
    """Add to each latency the ratio of the baseline's median time to its own, batch by batch.

    Only equal batch sizes are compared. The ratio is None if the ranking does not list the variant at this
    batch, or if the baseline was not timed there with enough samples: a quotient of times that cannot be
    ranked would be a ranking.

    Args:
        rows: a report's variants of one artifact.
        ranking: their ranking.

    Returns:
        The rows with their ratios, and the name of the baseline; empty if there is no ratio.
    """
    usual = [row for row in rows if row.device == "cpu" and is_usual(row.engine)]
    found = {row.variant: row for row in usual if row.latency}
    name = next((name for name in BASELINES if name in found), "")
    timings = found[name].latency if name else ()
    medians = {timing.batch: timing.p50_ms for timing in timings if timing.runs >= LEAST_SAMPLES}
    listed = listed_in(ranking)
    compared = tuple(
        row.model_copy(update={"latency": tuple(_compared(row, medians, listed))}) for row in rows
    )
    ratios = (timing.speed_up_over_cpu for row in compared for timing in row.latency)
    return compared, f"{name} on cpu" if any(ratios) else ""


TimingKey = tuple[str, str, str, str, int]
"""What identifies a timing: its artifact, variant, engine, device and batch."""


def timing_key(row: VariantRow, timing: LatencyRow) -> TimingKey:
    """Return what identifies a timing of a variant."""
    return row.artifact, row.variant, row.engine, row.device, timing.batch


def listed_in(ranking: Ranking) -> frozenset[TimingKey]:
    """Return the timings that a ranking lists."""
    return frozenset((row.artifact, row.variant, row.engine, row.device, row.batch) for row in ranking.rows)


def _compared(
    row: VariantRow, medians: Mapping[int, float], listed: frozenset[TimingKey]
) -> Iterator[LatencyRow]:
    for timing in row.latency:
        base = medians.get(timing.batch) if timing_key(row, timing) in listed else None
        yield timing.model_copy(update={"speed_up_over_cpu": base / timing.p50_ms if base else None})
