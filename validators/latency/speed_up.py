"""Speed-up of a variant over torch in fp32 on the CPU of the same machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from vconv.validators.report.rows import LatencyRow, VariantRow

BASELINES = ("original-torch-fp32", "patched-torch-fp32")
"""Candidates for the baseline on the CPU: the first that was timed is used."""


def with_speed_ups(rows: Sequence[VariantRow]) -> tuple[tuple[VariantRow, ...], str]:
    """Add to each latency the ratio of the baseline's median time to its own, batch by batch.

    Only equal batch sizes are compared. If the baseline was not timed at a batch, the ratio is None.

    Args:
        rows: a report's variants of one artifact.

    Returns:
        The rows with their ratios, and the name of the baseline; empty if none was timed.
    """
    found = {row.variant: row for row in rows if row.device == "cpu" and row.latency}
    name = next((name for name in BASELINES if name in found), "")
    medians = {timing.batch: timing.p50_ms for timing in found[name].latency} if name else {}
    compared = tuple(row.model_copy(update={"latency": tuple(_compared(row, medians))}) for row in rows)
    return compared, f"{name} on cpu" if name else ""


def _compared(row: VariantRow, medians: Mapping[int, float]) -> Iterator[LatencyRow]:
    for timing in row.latency:
        base = medians.get(timing.batch)
        yield timing.model_copy(update={"speed_up_over_cpu": base / timing.p50_ms if base else None})
