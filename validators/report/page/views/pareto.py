"""Accuracy against latency: every variant in every engine, and the front of those that none beats in both."""

from __future__ import annotations

from vconv.types import Status
from vconv.validators.report import sentences
from vconv.validators.report.comparison import worst_of
from vconv.validators.report.document import Report
from vconv.validators.report.page import figures
from vconv.validators.report.page.charts import Frame
from vconv.validators.report.page.scatter import CROSS, MARK, RING, Point, front, scatter
from vconv.validators.report.page.views.base import STATUS, Chart, Column, Table, chart, numbers
from vconv.validators.report.rows import LatencyRow, VariantRow

_FORMS = {Status.PASSED: MARK, Status.FAILED: CROSS}
"""By status: how a variant is drawn; otherwise as one that is not judged."""
_METRIC = "vector_relative_error"
_Timed = tuple[int, VariantRow, LatencyRow]
"""The index of a variant in the report, its row, and its timing at the least batch."""


def pareto(report: Report) -> list[Chart]:
    """Draw one chart per device, at the least batch that was timed there; none if nothing was timed."""
    devices = dict.fromkeys(row.device for row in report.variants if row.latency)
    found = (_of_device(report, device, place) for place, device in enumerate(devices))
    return [one for one in found if one]


def _of_device(report: Report, device: str, order: int) -> Chart | None:
    rows = [(place, row) for place, row in enumerate(report.variants) if row.device == device]
    batch = min(timing.batch for _, row in rows for timing in row.latency)
    timed = [(place, row, one) for place, row in rows for one in row.latency if one.batch == batch]
    timed.sort(key=lambda one: one[2].p50_ms)
    drawn = [_point(*one) for one in timed]
    points = [point for point in drawn if point]
    if not points:
        return None
    ranked = any((row.device, row.batch) == (device, batch) for row in report.ranking.rows)
    best = front(point for point in points if point.form == MARK) if ranked else []
    limits = {row.limit.bounds.get(_METRIC) for _, row, _ in timed if row.limit}
    common = limits.pop() if len(limits) == 1 else None
    bound = (common, f"limit {figures.bound(common)}") if common else None
    axes = (f"median, milliseconds at batch {batch}", "worst vector relative error of an output")

    def draw(frame: Frame) -> str:
        return scatter(frame, points, best, axes=axes, bound=bound)

    named = (Column("variant"), *numbers("error", "limit", "median, ms"), Column("on the front"))
    table = Table(
        f"Error and median on {device}, batch {batch}",
        (*named, Column("status", STATUS)),
        tuple(_line(one, point in best if ranked else None) for one, point in zip(timed, drawn, strict=True)),
    )
    title = f"Accuracy against latency on {device}, batch {batch}"
    return chart(f"pareto-{order}", title, _finding(best, points, ranked), draw, table)


def _point(place: int, row: VariantRow, timing: LatencyRow) -> Point | None:
    error = worst_of(_METRIC, list(row.outputs.values()))
    if error is None:
        return None
    form = _FORMS.get(row.status, RING)
    name = sentences.short_name(row) + {CROSS: " (failed)", RING: " (not judged)"}.get(form, "")
    return Point(name, timing.p50_ms, error, place, form)


def _line(one: _Timed, on_front: bool | None) -> tuple[str, ...]:
    _, row, timing = one
    limit = row.limit.bounds.get(_METRIC) if row.limit else None
    error = worst_of(_METRIC, list(row.outputs.values()))
    return (
        sentences.short_name(row),
        figures.DASH if error is None else figures.error(error),
        figures.DASH if limit is None else figures.bound(limit),
        figures.number(timing.p50_ms),
        figures.DASH if on_front is None else "yes" if on_front else "no",
        row.status.value,
    )


def _finding(best: list[Point], points: list[Point], ranked: bool) -> str:
    if not ranked:
        return "Not ranked, so that no front is drawn."
    if not best:
        return "No variant that passed can be drawn."
    told = (f"{one.name} ({figures.number(one.across)} ms, {figures.error(one.up)})" for one in best)
    failed = sum(point.form == CROSS for point in points)
    crossed = f" {failed} failed, and {'is' if failed == 1 else 'are'} crossed." if failed else ""
    return f"No variant that passed is both faster and closer than {', '.join(told)}.{crossed}"
