"""The speed of variants: every sample, ranks, and images per second."""

from __future__ import annotations

from typing import Any

import numpy as np

from vconv.validators.report import sentences
from vconv.validators.report.document import Ranking, RankRow, Report
from vconv.validators.report.page import charts, figures
from vconv.validators.report.page.charts import Frame, Series, Strip
from vconv.validators.report.page.views.base import Chart, Column, Table, chart, numbers
from vconv.validators.report.page.views.pareto import pareto
from vconv.validators.report.rows import LatencyRow, VariantRow

_FIGURES = {
    "runs": "runs",
    "p50_ms": "median",
    "p50_ms_interval": "95 % of it",
    "p90_ms": "p90",
    "p99_ms": "p99",
    "mean_ms": "mean",
    "std_ms": "deviation",
    "min_ms": "least",
    "max_ms": "most",
    "ms_per_image": "ms an image",
    "images_per_second": "images/s",
    "speed_up_over_cpu": "speed-up",
}
"""The figures in the table of a batch, each with its heading."""

Timed = tuple[int, VariantRow, LatencyRow]
"""The index of a variant in the report, its row, and one of its timings."""


def speed(report: Report) -> dict[str, Any]:
    """Lay out the section on speed."""
    groups = _groups(report)
    notes = [
        f"{sentences.short_name(row)}, batch {one.batch}: {warning}"
        for row in report.variants
        for one in row.latency
        for warning in one.warnings
    ]
    missing = [
        f"{sentences.short_name(row)}: batch {one.batch} not timed: {one.reason}"
        for row in report.variants
        for one in row.skipped_batches
    ]
    missing += [
        f"{sentences.short_name(row)}: not timed: {row.timing_refused}"
        for row in report.variants
        if row.timing_refused
    ]
    return {
        "ranked": _ranked(report),
        "fastest": [] if report.ranking.refused else sentences.fastest(report.ranking),
        "winners": [one.load for one in report.winners if one.load],
        "pareto": pareto(report),
        "refused": report.ranking.refused,
        "left_out": [f"{one.device}, batch {one.batch}: {one.reason}" for one in report.ranking.left_out],
        "latency": [_latency(group, place, report.ranking) for place, group in enumerate(groups.values())],
        "throughput": _throughput(groups, report.ranking),
        "percentiles": sentences.PERCENTILES,
        "baseline": report.speed_up_baseline,
        "machine": report.machine.reason,
        "preprocessing": figures.number(report.preprocessing_ms_per_image),
        "warnings": notes,
        "missing": missing,
    }


def _groups(report: Report) -> dict[tuple[str, int], list[Timed]]:
    groups: dict[tuple[str, int], list[Timed]] = {}
    for place, row in enumerate(report.variants):
        for timing in row.latency:
            groups.setdefault((row.device, timing.batch), []).append((place, row, timing))
    return {key: groups[key] for key in sorted(groups)}


def _ranked(report: Report) -> Table | None:
    rows = report.ranking.rows
    if not rows:
        return None
    laid = tuple(
        (
            f"{row.variant} ({row.engine})",
            row.device,
            str(row.batch),
            figures.DASH if row.rank is None else f"{row.rank}{'=' if row.tied_with else ''}",
            figures.number(row.p50_ms),
            _interval(row.interval),
        )
        for row in rows
    )
    named = (Column("variant"), Column("device"), *numbers("batch", "rank", "median, ms", "95 % of it, ms"))
    return Table("Ranks, by medians, as far as the samples tell variants apart", named, laid)


def _interval(found: tuple[float, float] | None) -> str:
    return f"{figures.number(found[0])} to {figures.number(found[1])}" if found else figures.DASH


def _latency(group: list[Timed], place: int, ranking: Ranking) -> Chart:
    _, first, timing = group[0]
    where = f"{first.device}, batch {timing.batch}"
    ranked = any((row.device, row.batch) == (first.device, timing.batch) for row in ranking.rows)
    ordered = sorted(group, key=lambda one: one[2].p50_ms)
    ends = [
        figures.number(one.p50_ms) + " ms" + f" ({sentences.short_name(row)})" * ranked
        for _, row, one in (ordered[0], ordered[-1])[: len(group)]
    ]
    finding = (
        f"{'Median' if ranked else 'Not ranked. Median'} {'from ' * (len(ends) > 1)}{' to '.join(ends)}."
    )
    rows = [_strip(*one) for one in group]

    def draw(frame: Frame) -> str:
        return charts.strips(frame, rows, "milliseconds a batch")

    shown = [key for key in _FIGURES if any(getattr(one[2], key) is not None for one in group)]
    laid = tuple(
        (sentences.short_name(row), *(_figure(key, getattr(one, key)) for key in shown))
        for _, row, one in group
    )
    named = (Column("variant"), *numbers(*(_FIGURES[key] for key in shown)))
    table = Table(f"Milliseconds a batch on {where}", named, laid)
    return chart(f"latency-{place}", f"Latency on {where}", finding, draw, table)


def _figure(key: str, value: Any) -> str:
    if key == "p50_ms_interval":
        return _interval(value)
    return str(value) if key == "runs" else figures.number(value)


def _strip(place: int, row: VariantRow, timing: LatencyRow) -> Strip:
    samples = timing.samples_ms
    low, middle, high = (float(value) for value in np.percentile(samples, (25, 50, 75)))
    box = None if timing.p90_ms is None else (low, high, timing.p90_ms)
    return Strip(sentences.short_name(row), samples, middle, box, place)


def _most(ranking: Ranking) -> str:
    """Return the most images a second of any first rank, with the variants that share it; or that none is."""
    first = [row for row in ranking.rows if row.rank == 1]
    if not first:
        return "Not ranked."
    best = max(first, key=_rate)
    tied = ", ".join(sentences.named(other) for other in best.tied_with)
    return (
        f"Most: {sentences.named(best)} on {best.device}, {figures.number(_rate(best))} images a second at "
        f"batch {best.batch}" + f"; not told apart: {tied}" * bool(tied) + "."
    )


def _rate(row: RankRow) -> float:
    return 1e3 * row.batch / row.p50_ms


def _throughput(groups: dict[tuple[str, int], list[Timed]], ranking: Ranking) -> Chart | None:
    timed = [one for group in groups.values() for one in group]
    if not timed:
        return None
    batches = sorted({timing.batch for _, _, timing in timed})
    by_row: dict[int, dict[int, float]] = {}
    names = {place: sentences.short_name(row) for place, row, _ in timed}
    for place, _, timing in timed:
        by_row.setdefault(place, {})[timing.batch] = timing.images_per_second
    finding = _most(ranking)
    table = Table(
        "Images a second, by batch",
        (Column("variant"), *numbers(*(f"batch {one}" for one in batches))),
        tuple(
            (names[key], *(figures.number(found.get(one)) for one in batches))
            for key, found in by_row.items()
        ),
    )
    if len(batches) == 1:
        (batch,) = batches
        rows = [
            (names[key], found[batch], figures.number(found[batch]), key) for key, found in by_row.items()
        ]
        only = f"{finding} Batch {batch} alone was timed."
        axis = f"images a second at batch {batch}"
        return chart("throughput", "Throughput", only, lambda frame: charts.bars(frame, rows, axis), table)
    series = [
        Series(names[key], tuple(found.get(one) for one in batches), key) for key, found in by_row.items()
    ]
    axes = ("images in a batch", "images a second")

    def draw(frame: Frame) -> str:
        return charts.lines(frame, [str(one) for one in batches], series, axes=axes, logarithmic=False)

    return chart("throughput", "Throughput against batch", finding, draw, table)
