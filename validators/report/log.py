"""The log in plain text: the progress lines and every figure of the report, readable without a tool."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from vconv.progress import Counted
from vconv.runtime.engines.table import simulates
from vconv.types import Say, weights_named
from vconv.validators.accuracy.metrics import METRICS
from vconv.validators.report import sentences
from vconv.validators.report.bisection import Bisection
from vconv.validators.report.comparison import Comparison
from vconv.validators.report.dataset_document import DatasetReport, DatasetRow, WorstImage
from vconv.validators.report.document import LimitsUsed, MachineLoad, PublishedRow, Report
from vconv.validators.report.rows import LaunchesRow, OutputRow, OutputSummary, VariantRow

_LATENCY = (
    *("runs", "mean_ms", "std_ms", "min_ms", "max_ms", "p50_ms", "p50_ms_interval", "p90_ms", "p99_ms"),
    *("ms_per_image", "images_per_second", "speed_up_over_cpu"),
)
_COSTS = (
    *("load_ms", "first_ms", "peak_memory_is", "peak_rss_bytes", "peak_rss_growth_bytes"),
    *("peak_device_bytes", "threads"),
)
_SAMPLES = "samples_ms"
"""Left out of the log, because a hundred samples are not readable; the report has them."""
_VERDICT = ("floor", "limit", *METRICS, "to_stock_original")
_PERCENTILES = ("cosine", "relative_error", "vector_relative_error")
_WORST = ("cosine", "relative_error", "vector_relative_error", "share_of_limit")
_SUMMARY = ("shape", "dtype", "device", "min", "max", "mean", "first")


class Log:
    """Passes progress lines on, and records each with its time.

    Counters and estimates of the remaining time are not recorded: they are of no use afterwards.

    Args:
        say: receives progress lines.
    """

    def __init__(self, say: Say) -> None:
        self._say, self._start = say, time.perf_counter()
        self._lines: list[str] = []

    def say(self, line: str) -> None:
        """Pass on and record one line."""
        if not isinstance(line, Counted):
            self._lines.append(f"{time.perf_counter() - self._start:8.1f} s  {line}")
        self._say(line)

    def render(self, report: Report) -> str:
        """Return the log of a validation: progress lines and results."""
        return "\n".join([*self._lines, "", *_lines(report)]) + "\n"

    def render_comparison(self, report: Comparison) -> str:
        """Return the log of a comparison: progress lines and results, one line per row."""
        rows = [
            ", ".join(f"{key} {_number(value)}" for key, value in row.as_json().items() if key != _SAMPLES)
            for row in report.rows
        ]
        checks = [
            f"{check.status:<10} {check.artifact}: {check.name}: {check.detail}" for check in report.checks
        ]
        weights = [
            f"weights of {path}: {label}; reference {report.references[path]}; {report.statuses[path]}"
            for path, label in report.weights.items()
        ]
        limits = _limits(report.limits)
        checks += [f"{check.status:<10} {check.name}: {check.detail}" for check in report.left_out]
        found = [
            _machine(report.machine),
            *sentences.ranks(report.ranking),
            sentences.winner(report),
            *checks,
        ]
        return "\n".join([*self._lines, "", *weights, *limits, *rows, "", *found, report.status]) + "\n"

    def render_bisection(self, report: Bisection) -> str:
        """Return the log of a bisection: progress lines and results."""
        return "\n".join([*self._lines, "", *_bisection(report)]) + "\n"


def _bisection(report: Bisection) -> Iterator[str]:
    yield f"artifact   {report.artifact}"
    yield f"weights    {weights_named(report.weights, report.synthetic)}"
    simulated = ", simulated" * (report.simulated or simulates(report.engine))
    yield f"variant    {report.variant} ({report.engine}, {report.device}{simulated})"
    yield f"reference  {report.reference.name}, fp32 on cpu"
    yield f"inputs     {report.inputs.source}: {', '.join(report.inputs.images)}"
    for note in report.notes:
        yield f"note       {note}"
    for row in report.stages:
        own, total = _number(row.own), _number(row.total)
        yield f"  {row.stage}: {own} in this stage alone, {total} accumulated"
    yield f"operators of {report.worst_stage}:"
    for operator in report.operators:
        named = f"{operator.operator} {operator.node} {_number(operator.shape)}"
        agrees = "agrees" if operator.agrees else "departs"
        weights = f", on {', '.join(operator.weights)}" if operator.weights else ""
        nearest = operator.counterpart or "-"
        yield f"  {agrees}  {_number(operator.error)}  {named}{weights}; nearest: {nearest}"
    yield ""
    yield report.sentence
    yield f"{report.status}, within {_number(report.bound)}"


def _lines(report: Report) -> Iterator[str]:
    yield f"artifact   {report.artifact}"
    yield f"weights    {weights_named(report.weights, report.synthetic)}"
    reference = report.reference
    yield f"reference  {reference.name}, {reference.source}, {reference.precision} on {reference.device}"
    if reference.recorded:
        yield f"           {sentences.reference(reference)}"
    yield f"inputs     {report.inputs.source}: {', '.join(report.inputs.images) or '-'}"
    if report.manifest:
        yield f"manifest   sha256 {report.manifest.sha256}, by vconv {report.manifest.vconv}"
        for name, file in report.manifest.files.items():
            yield f"  {name}: {file.nbytes} bytes, sha256 {file.sha256}"
    for graph in report.graphs:
        yield f"graph      {graph.path}: {graph.nbytes} bytes, sha256 {graph.sha256}"
        yield from (f"  {line}" for line in sentences.contract(graph))
    for name, model in report.devices.items():
        yield f"device     {name}: {model}"
        for setting, value in report.device_settings[name].items():
            yield f"  {setting}: {value}"
    for name, version in report.environment.items():
        yield f"{name:<16} {version}"
    yield f"preprocessing    {_number(report.preprocessing_ms_per_image)} ms an image"
    if any(row.latency for row in report.variants):
        yield sentences.PERCENTILES
    if report.speed_up_baseline:
        yield f"speed-ups are over {report.speed_up_baseline}"
    yield from _limits(report.limits)
    for row in report.variants:
        yield from _variant(row)
    if report.dataset:
        yield from _dataset(report.dataset)
    yield ""
    yield _machine(report.machine)
    yield from sentences.ranks(report.ranking)
    yield from sentences.winners(report)
    yield from map(_published, report.published)
    for check in report.checks:
        yield f"{check.status:<10} {check.name}: {check.detail}"
    for found in report.diagnosis:
        yield f"diagnosis  {found.fault}: {found.meaning} ({found.where}: {found.because})"
    yield ""
    if why := sentences.incomplete(report.status, report.variants):
        yield why
    yield f"{report.status}, within {report.limits.within} limits"


def _limits(limits: LimitsUsed) -> Iterator[str]:
    yield f"limits     {limits.within}" + (f", sha256 {limits.file.sha256}" if limits.file else "")
    for row in limits.rows:
        bounds = ", ".join(f"{metric} {_number(bound)}" for metric, bound in row.bounds.items())
        yield f"  {sentences.computed(row.precision, row.arithmetic)}: {bounds} ({row.source})"


def _variant(row: VariantRow) -> Iterator[str]:
    simulated = ", simulated" if row.simulated else ""
    yield ""
    yield f"{row.variant} ({row.engine}, {row.device}{simulated}): {sentences.standing(row)}"
    if row.reason:
        yield f"  {row.reason}"
    if row.batches:
        batches = " and ".join(map(str, row.batches))
        yield f"  judged in {sentences.computed(row.precision, row.arithmetic)} at batch {batches}"
    for one in row.sizes:
        size = f"{one.size[0]}x{one.size[1]}, batch {one.batch}"
        yield f"  at {size}: {one.skipped or f'vector_relative_error {_number(one.vector_relative_error)}'}"
        yield from (f"    {reason}" for reason in one.reasons)
    for name in {**row.outputs, **row.output_summary}:
        yield from _output(name, row.outputs.get(name), row.output_summary.get(name))
    yield from _prediction(row)
    if warning := sentences.fallbacks(row):
        yield f"  warning: {warning}"
    yield "  " + ", ".join(f"{key} {_number(getattr(row, key))}" for key in _COSTS)
    if row.peak_memory_reason:
        yield f"  memory not measured: {row.peak_memory_reason}"
    if row.launches:
        yield f"  launches: {_launches(row.launches)}"
    yield from _beside(row)
    if row.timing_refused:
        yield f"  not timed: {row.timing_refused}"
    for timing in row.latency:
        figures = [f"{key} {_number(getattr(timing, key))}" for key in _LATENCY]
        yield f"  batch {timing.batch}: " + ", ".join(figures)
        yield from (f"    warning: {warning}" for warning in timing.warnings)
    for skipped in row.skipped_batches:
        yield f"  batch {skipped.batch}: not timed, {skipped.reason}"


def _output(name: str, verdict: OutputRow | None, summary: OutputSummary | None) -> Iterator[str]:
    """Lay out one output: its verdict and a summary of its values."""
    yield f"  {name}: {verdict.status if verdict else '-'}, {_number(verdict.shape if verdict else None)}"
    if summary:
        yield "    " + ", ".join(f"{key} {_number(getattr(summary, key))}" for key in _SUMMARY)
    if verdict:
        known = {"floor": verdict.floor, "limit": verdict.limit, **verdict.metrics}
        stock = verdict.to_stock_original
        known |= {} if stock is None else {"to_stock_original": stock}
        yield "    " + ", ".join(f"{key} {_number(known[key])}" for key in _VERDICT if key in known)
        yield from (f"    {reason}" for reason in verdict.reasons)


def _beside(row: VariantRow) -> Iterator[str]:
    """Lay out the additional measurements: the error after each stage, and the error of patches."""
    if row.depth:
        after = ", ".join(f"{one.stage} {_number(one.error)}" for one in row.depth)
        yield f"  error against depth, on the first image: {after}"
    for one in row.patch_maps or ():
        yield f"  patches of {one.image}: largest difference {_number(one.largest)}"
    for name, reason in (("depth", row.depth_reason), ("patch maps", row.patch_maps_reason)):
        if reason:
            yield f"  no {name}: {reason}"


def _prediction(row: VariantRow) -> Iterator[str]:
    """Lay out the prediction of a simulated device; nothing for a real device."""
    found = row.prediction
    if row.gelu:
        yield f"  GELU: {row.gelu}" + " (simulated)" * row.simulated
    if not found:
        return
    arithmetic = ", ".join(f"{name} {how}" for name, how in found.arithmetic.items())
    changed = ", ".join(f"{count} {cause}" for cause, count in found.changed.items())
    of = f"{found.executed} {sentences.executed(row)}"
    yield f"  predicted by simulation: {arithmetic}; of {of}, changed: {changed}"
    parts = {"predicted in all": found.outputs, "the rest": found.rest}
    parts |= {f"{cause} alone": one.outputs for cause, one in found.causes.items()}
    for part, outputs in parts.items():
        for name, errors in outputs.items():
            figures = ", ".join(f"{key} {_number(value)}" for key, value in errors)
            yield f"    {part} (simulated), {name}: {figures}"


def _dataset(found: DatasetReport) -> Iterator[str]:
    """Lay out the results on a folder of images."""
    resumed = ", resumed" * found.resumed
    yield ""
    yield f"data set {found.folder}: {sentences.images(found)}, {_number(found.seconds)} s{resumed}"
    yield f"neighbours by {found.neighbours_of}, shared by chance: {_number(found.agreement_by_chance)}"
    for row in found.variants:
        status = sentences.word(row.status, row.reason, measured=True)
        yield f"{_placed(row)}: {status}" + f": {row.reason}" * bool(row.reason)
        for name, output in row.outputs.items():
            limit = f"limit {_number(output.limit)}, beyond {_number(output.beyond)}"
            yield f"  {name}: compared {output.compared}, {limit}"
            for metric in _PERCENTILES:
                figures = (f"{key} {_number(value)}" for key, value in getattr(output, metric).items())
                yield f"    {metric}: {', '.join(figures)}"
        near = row.neighbours
        agrees = _number(near.agreement)
        yield f"  share of the {near.k} nearest neighbours that are the reference's: {agrees}"
        if row.top1_agreement is not None:
            yield f"  share of images with the reference's first class: {_number(row.top1_agreement)}"
    for pair in found.neighbours_between:
        yield f"neighbours shared by {pair.first} and {pair.second}: {_number(pair.agreement)}"
    for worst in found.worst:
        figures = (f"{key} {_number(getattr(worst, key))}" for key in _WORST)
        yield f"worst      {worst.image}: {_placed(worst)}, {worst.output}: {', '.join(figures)}"
    for skipped in found.skipped:
        yield f"skipped    {skipped.image}: {skipped.reason}"
    if found.skipped_count > len(found.skipped):
        yield f"skipped    and {found.skipped_count - len(found.skipped):,} more, which no report lists"


def _placed(row: DatasetRow | WorstImage) -> str:
    return f"{row.variant} ({row.engine}, {row.device}{', simulated' * row.simulated})"


def _launches(found: LaunchesRow) -> str:
    operators = ", ".join(f"{name} {number}" for name, number in found.operators.items())
    return f"for one image {found.total} {found.how}; operators: {operators}"


def _machine(machine: MachineLoad) -> str:
    state = {True: "busy", False: "quiet", None: "unknown"}[machine.busy]
    cores = f"others_cores {_number(machine.others_cores)}, steal_cores {_number(machine.steal_cores)}"
    return f"machine while variants were timed: {state}, {cores}, {machine.reason}"


def _published(row: PublishedRow) -> str:
    what = f"batch {row.batch}" if row.batch else row.output
    figures = ", ".join(f"{key} {_number(value)}" for key, value in row.figures.items())
    return f"published  {row.variant} on {row.device}, {what}: {figures} ({row.source})"


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_number, value))}]"
    return "-" if value is None else str(value)
