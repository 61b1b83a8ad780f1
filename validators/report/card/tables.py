"""The tables of a card: the figures of a report, unchanged except for a quotient in :func:`improvement`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from vconv.catalog.published import PublishedFigures
from vconv.runtime.engines.table import is_usual, simulates
from vconv.types import Status
from vconv.validators.accuracy.metrics import METRICS
from vconv.validators.report.card.evidence import DeviceEvidence
from vconv.validators.report.card.markdown import code, escaped, table
from vconv.validators.report.card.words import Words
from vconv.validators.report.rows import CauseRow, LaunchesRow, OutputRow, PredictedErrors, VariantRow
from vconv.validators.report.sentences import PlacedVariant, standing

_ABSENT = "-"
_LATENCY = (
    *("batch", "runs", "mean_ms", "std_ms", "min_ms", "p50_ms", "p90_ms", "p99_ms", "max_ms"),
    *("ms_per_image", "images_per_second", "speed_up_over_cpu"),
)
_COSTS = ("load_ms", "first_ms", "peak_rss_bytes", "peak_device_bytes")
_MEGA = 1e6


def _milliseconds(value: float) -> str:
    return f"{value:.2f}"


def _error(value: float) -> str:
    return f"{value:.2e}"


def _share(value: float) -> str:
    return f"{value:.6f}"


def _percent(value: float) -> str:
    return f"{100 * value:.4f} %"


def _bytes(value: float) -> str:
    return f"{value / _MEGA:.1f}"


_STYLES: Mapping[str, Callable[[float], str]] = {
    **dict.fromkeys(("batch", "runs"), str),
    **dict.fromkeys(("images_per_second", "speed_up_over_cpu"), _milliseconds),
    **dict.fromkeys(("cosine", "token_cosine_p1", "token_cosine_min", "top1_match"), _share),
    **dict.fromkeys(("peak_rss_bytes", "peak_device_bytes"), _bytes),
}
"""The format of figures that are neither milliseconds nor errors."""


def figure(key: str, value: float | None) -> str:
    """Format one figure of a report; a dash if the figure is missing."""
    if value is None:
        return _ABSENT
    return _STYLES.get(key, _milliseconds if key.endswith("_ms") or key.startswith("ms_") else _error)(value)


def named(row: PlacedVariant, words: Words) -> str:
    """Return the name of a variant, followed by *simulated* unless its engine says so."""
    engine = "" if is_usual(row.engine) else f" ({escaped(row.engine)})"
    simulated = words.say("marks", "simulated") if row.simulated and not simulates(row.engine) else ""
    return f"{code(row.variant)}{engine}{simulated}"


def latency(evidence: DeviceEvidence, words: Words) -> str:
    """Lay out the latencies on a device: one row per variant and batch."""
    timed = [(row, timing) for row in evidence.rows for timing in row.latency]
    shown = [key for key in _LATENCY if any(getattr(timing, key) is not None for _, timing in timed)]
    rows = [
        [named(row, words), *(figure(key, getattr(timing, key)) for key in shown)] for row, timing in timed
    ]
    return table(_headings(words, "variant", *shown), rows, len(shown))


def costs(evidence: DeviceEvidence, words: Words) -> str:
    """Lay out the other costs of each variant: load, first run, peak memory and launches."""
    measured = [
        row
        for row in evidence.rows
        if row.status is not Status.SKIPPED and any(getattr(row, key) for key in (*_COSTS, "launches"))
    ]
    shown = [key for key in _COSTS if any(getattr(row, key) for row in measured)]
    rows = [
        [
            named(row, words),
            *(figure(key, getattr(row, key)) for key in shown),
            _launched(row.launches, words),
        ]
        for row in measured
    ]
    return table(_headings(words, "variant", *shown, "launches"), rows, len(shown) + 1)


def _launched(launches: LaunchesRow | None, words: Words) -> str:
    return f"{launches.total} {words.say('counted', launches.how)}" if launches else _ABSENT


def accuracy(evidence: DeviceEvidence, words: Words) -> str:
    """Lay out the accuracy of every output: the main metrics, with their limits, and the result."""
    judged = [row for row in evidence.rows if row.outputs]
    bounded = list(dict.fromkeys(key for row in judged for key in _bounds(row)))
    metrics = [metric for metric in METRICS if metric in bounded or metric in ("relative_error", "cosine")]
    rows = [
        [
            named(row, words),
            code(output),
            *(_held(metric, found, _bounds(row)) for metric in metrics),
            figure("floor", found.floor),
            words.say("statuses", found.status if row.judged else standing(row)),
        ]
        for row in judged
        for output, found in row.outputs.items()
    ]
    return table(_headings(words, "variant", "output", *metrics, "floor", "result"), rows)


def _bounds(row: VariantRow) -> Mapping[str, float]:
    return row.limit.bounds if row.limit else {}


def _held(metric: str, found: OutputRow, bounds: Mapping[str, float]) -> str:
    """Format a metric, with its limit if it has one."""
    value = found.metrics.get(metric)
    written = figure(metric, value)
    if metric not in bounds or value is None:
        return written
    return f"{written} ({'≥' if METRICS[metric].better == 'high' else '≤'} {bounds[metric]:g})"


def further(evidence: DeviceEvidence, words: Words) -> str:
    """Lay out the other metrics, which have no limit."""
    judged = [row for row in evidence.rows if row.outputs]
    bounded = {key for row in judged for key in _bounds(row)} | {"relative_error", "cosine"}
    metrics = [
        metric
        for metric in METRICS
        if metric not in bounded
        and any(metric in found.metrics for row in judged for found in row.outputs.values())
    ]
    rows = [
        [named(row, words), code(output), *(figure(metric, found.metrics.get(metric)) for metric in metrics)]
        for row in judged
        for output, found in row.outputs.items()
    ]
    return table(_headings(words, "variant", "output", *metrics), rows, len(metrics))


def improvement(evidence: DeviceEvidence, words: Words) -> str:
    """Lay out the effect of patching on a device: the error of the original and of the patched model."""
    by_name = {row.variant: _errors(row) for row in evidence.rows}
    before, after = by_name.get("original-torch-fp32", {}), by_name.get("patched-torch-fp32", {})
    rows = [
        [
            code(output),
            _percent(before[output]),
            _percent(after[output]),
            f"{before[output] / after[output]:.1f}",
        ]
        for output in before
        if after.get(output)
    ]
    return table(_headings(words, "output", "original", "patched", "factor"), rows, 3)


def _errors(row: VariantRow) -> Mapping[str, float]:
    """Return the relative error of each output; on a simulated device, the predicted error."""
    if row.prediction:
        errors = {name: found.relative_error for name, found in row.prediction.outputs.items()}
    else:
        errors = {name: found.metrics.get("relative_error") for name, found in row.outputs.items()}
    return {name: error for name, error in errors.items() if error}


def prediction(evidence: DeviceEvidence, words: Words) -> str:
    """Lay out the errors that a simulated NPU predicts, also by cause; a dash if a cause changed nothing."""
    predicted = [(row, row.prediction) for row in evidence.rows if row.prediction]
    causes = list(dict.fromkeys(cause for _, found in predicted for cause in found.causes))
    rows = [
        [
            named(row, words),
            code(output),
            _error_of(errors),
            *(_alone(found.causes.get(cause), output) for cause in causes),
            _error_of(found.rest[output]),
        ]
        for row, found in predicted
        for output, errors in found.outputs.items()
    ]
    return table(_headings(words, "variant", "output", "predicted", *causes, "rest"), rows, 2 + len(causes))


def _alone(cause: CauseRow | None, output: str) -> str:
    return _error_of(cause.outputs[output]) if cause and cause.changed else _ABSENT


def _error_of(errors: PredictedErrors) -> str:
    return _ABSENT if errors.relative_error is None else _percent(errors.relative_error)


_PERCENTILES = (("cosine", ("p1", "p50")), ("vector_relative_error", ("p50", "p99", "p100")))
"""By metric: the percentiles over a folder of images that a card shows."""


def dataset(evidence: DeviceEvidence, words: Words) -> str:
    """Lay out how variants agree with the reference over a folder of images, if a folder was given."""
    found = evidence.document.dataset
    rows = [
        [
            named(row, words),
            code(output),
            *(figure(metric, getattr(of, metric)[key]) for metric, keys in _PERCENTILES for key in keys),
            figure("top1_match", row.neighbours.agreement),
            figure("top1_match", row.top1_agreement),
        ]
        for row in (found.variants if found else ())
        if row.device == evidence.device
        for output, of in row.outputs.items()
    ]
    percentiles = [f"{words.say('headings', metric)}, {key}" for metric, keys in _PERCENTILES for key in keys]
    headings = (
        _headings(words, "variant", "output"),
        percentiles,
        _headings(words, "neighbours", "top1_match"),
    )
    return table([heading for part in headings for heading in part], rows, 2 + len(percentiles))


def _value(value: float | None) -> str:
    """Format a value of an output; a report has None for NaN and infinity."""
    return "NaN/Inf" if value is None else f"{value:.4f}"


def summary(row: VariantRow, words: Words) -> str:
    """Lay out a summary of one variant's outputs for the first image."""
    keys = ("shape", "dtype", "device", "min", "max", "mean", "first")
    rows = [
        [
            code(output),
            code(str(list(found.shape))),
            code(found.dtype),
            code(found.device),
            *(_value(one) for one in (found.min, found.max, found.mean)),
            ", ".join(map(_value, found.first)),
        ]
        for output, found in row.output_summary.items()
    ]
    return table(_headings(words, "output", *keys), rows)


def versions(found: Mapping[str, str | int], shown: Iterable[str], words: Words) -> str:
    """Lay out the versions of the installed components."""
    rows = [
        [words.say("components", key), escaped(str(found[key]))]
        for key in shown
        if found.get(key, "not installed") != "not installed"
    ]
    return table(_headings(words, "component", "version"), rows)


def settings(evidence: DeviceEvidence, words: Words) -> str:
    """Lay out the settings of a device; empty if it has none."""
    rows = [[code(key), code(str(value))] for key, value in evidence.settings.items()]
    return table(_headings(words, "setting", "figures"), rows)


def published(rows: Sequence[PublishedFigures], words: Words) -> str:
    """Lay out the figures that others have published, in a table separate from measured figures."""
    comma = words.say("marks", "where")
    cells = [
        [
            escaped(row.device),
            code(row.variant),
            code(row.output) if row.output else f"{words.say('headings', 'batch')} {row.batch}",
            comma.join(f"{words.say('headings', key)} {value:g}" for key, value in row.figures.items()),
            words.reword("sources", row.source),
        ]
        for row in rows
    ]
    return table(_headings(words, "device", "variant", "what", "figures", "source"), cells)


def _headings(words: Words, *keys: str) -> list[str]:
    return [words.say("headings", key) for key in keys]
