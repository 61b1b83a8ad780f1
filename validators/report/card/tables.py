"""The tables of a card: the figures of a report as they are, but for one quotient in :func:`improvement`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from vconv.runtime.engines.table import is_usual
from vconv.validators.accuracy.metrics import METRICS
from vconv.validators.report.card.evidence import DeviceEvidence, Row
from vconv.validators.report.card.markdown import code, escaped, table
from vconv.validators.report.card.words import Words

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
"""How figures look that are neither milliseconds nor errors."""


def figure(key: str, value: float | None) -> str:
    """Write one figure of a report; a dash where there is none."""
    if value is None:
        return _ABSENT
    return _STYLES.get(key, _milliseconds if key.endswith("_ms") or key.startswith("ms_") else _error)(value)


def named(row: Row, words: Words) -> str:
    """Name a variant; *simulated* follows it where its device is an imitation."""
    engine = "" if is_usual(row["engine"]) else f" ({row['engine']})"
    simulated = words.say("marks", "simulated") if row["simulated"] else ""
    return f"{code(row['variant'])}{engine}{simulated}"


def latency(evidence: DeviceEvidence, words: Words) -> str:
    """Lay out what was timed on a device: one row a variant and batch."""
    rows = [
        [named(row, words), *(figure(key, timing.get(key)) for key in _LATENCY)]
        for row in evidence.rows
        for timing in row["latency"]
    ]
    return table(_headings(words, "variant", *_LATENCY), rows, len(_LATENCY))


def costs(evidence: DeviceEvidence, words: Words) -> str:
    """Lay out what each variant took beside its steady state."""
    measured = [row for row in evidence.rows if any(row.get(key) for key in (*_COSTS, "launches"))]
    shown = [key for key in _COSTS if any(row.get(key) for row in measured)]
    rows = [
        [named(row, words), *(figure(key, row.get(key)) for key in shown), _launched(row["launches"], words)]
        for row in measured
    ]
    return table(_headings(words, "variant", *shown, "launches"), rows, len(shown) + 1)


def _launched(launches: Mapping[str, Any] | None, words: Words) -> str:
    return f"{launches['total']} {words.say('counted', launches['how'])}" if launches else _ABSENT


def accuracy(evidence: DeviceEvidence, words: Words) -> str:
    """Lay out how every output did: each metric that has a limit beside it, and the result."""
    judged = [row for row in evidence.rows if row["outputs"]]
    bounded = list(dict.fromkeys(key for row in judged for key in _bounds(evidence, row)))
    metrics = [metric for metric in METRICS if metric in bounded or metric in ("relative_error", "cosine")]
    rows = [
        [
            named(row, words),
            code(output),
            *(_held(metric, found, _bounds(evidence, row)) for metric in metrics),
            figure("floor", found["floor"]),
            words.say("statuses", found["status"]),
        ]
        for row in judged
        for output, found in row["outputs"].items()
    ]
    return table(_headings(words, "variant", "output", *metrics, "floor", "result"), rows)


def _bounds(evidence: DeviceEvidence, row: Row) -> Mapping[str, float]:
    if all(found["limit"] is None for found in row["outputs"].values()):
        return {}
    return evidence.limits.get((row["precision"], row["arithmetic"]), {})


def _held(metric: str, found: Mapping[str, Any], bounds: Mapping[str, float]) -> str:
    """Write a figure with the limit that it must keep."""
    written = figure(metric, found.get(metric))
    if metric not in bounds or found.get(metric) is None:
        return written
    return f"{written} ({'≥' if METRICS[metric].better == 'high' else '≤'} {bounds[metric]:g})"


def further(evidence: DeviceEvidence, words: Words) -> str:
    """Lay out the metrics that have no limit."""
    judged = [row for row in evidence.rows if row["outputs"]]
    bounded = {key for row in judged for key in _bounds(evidence, row)} | {"relative_error", "cosine"}
    metrics = [
        metric
        for metric in METRICS
        if metric not in bounded
        and any(metric in found for row in judged for found in row["outputs"].values())
    ]
    rows = [
        [named(row, words), code(output), *(figure(metric, found.get(metric)) for metric in metrics)]
        for row in judged
        for output, found in row["outputs"].items()
    ]
    return table(_headings(words, "variant", "output", *metrics), rows, len(metrics))


def improvement(evidence: DeviceEvidence, words: Words) -> str:
    """Lay out what patching changes on a device: the original's error beside the patched model's."""
    by_name = {row["variant"]: _errors(row) for row in evidence.rows}
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


def _errors(row: Row) -> Mapping[str, float]:
    """Return the relative error of each output: of a simulated device, what it predicts."""
    outputs = row["prediction"]["outputs"] if row["prediction"] else row["outputs"]
    return {name: found["relative_error"] for name, found in outputs.items() if found.get("relative_error")}


def prediction(evidence: DeviceEvidence, words: Words) -> str:
    """Lay out what a simulated NPU predicts, with each cause alone; a dash where one changed nothing."""
    predicted = [row for row in evidence.rows if row["prediction"]]
    causes = list(dict.fromkeys(cause for row in predicted for cause in row["prediction"]["causes"]))
    rows = [
        [
            named(row, words),
            code(output),
            _error_of(errors),
            *(_alone(row["prediction"]["causes"].get(cause), output) for cause in causes),
            _error_of(row["prediction"]["rest"][output]),
        ]
        for row in predicted
        for output, errors in row["prediction"]["outputs"].items()
    ]
    return table(_headings(words, "variant", "output", "predicted", *causes, "rest"), rows, 2 + len(causes))


def _alone(cause: Mapping[str, Any] | None, output: str) -> str:
    return _error_of(cause["outputs"][output]) if cause and cause["changed"] else _ABSENT


def _error_of(errors: Mapping[str, float]) -> str:
    return _ABSENT if errors["relative_error"] is None else _percent(errors["relative_error"])


_PERCENTILES = (("cosine", ("p1", "p50")), ("vector_relative_error", ("p50", "p99", "p100")))
"""What is shown of a folder of images: by metric, the percentiles."""


def dataset(evidence: DeviceEvidence, words: Words) -> str:
    """Lay out how variants agreed with the reference over a folder of images, if one was given."""
    found: Mapping[str, Any] = evidence.document.get("dataset") or {"variants": []}
    rows = [
        [
            named(row, words),
            code(output),
            *(figure(metric, of[metric][key]) for metric, keys in _PERCENTILES for key in keys),
            figure("top1_match", row["neighbours"]["agreement"] if row["neighbours"] else None),
            figure("top1_match", row["top1_agreement"]),
        ]
        for row in found["variants"]
        if row["device"] == evidence.device
        for output, of in row["outputs"].items()
    ]
    percentiles = [f"{words.say('headings', metric)}, {key}" for metric, keys in _PERCENTILES for key in keys]
    headings = (
        _headings(words, "variant", "output"),
        percentiles,
        _headings(words, "neighbours", "top1_match"),
    )
    return table([heading for part in headings for heading in part], rows, 2 + len(percentiles))


def _value(value: float | None) -> str:
    """Write a value of an output; a report has none for one that is no number."""
    return "NaN/Inf" if value is None else f"{value:.4f}"


def smoke(row: Row, words: Words) -> str:
    """Lay out what came out of one variant for the first image."""
    keys = ("shape", "dtype", "device", "min", "max", "mean", "first")
    rows = [
        [
            code(output),
            code(str(found["shape"])),
            code(found["dtype"]),
            code(found["device"]),
            *(_value(found[key]) for key in ("min", "max", "mean")),
            ", ".join(map(_value, found["first"])),
        ]
        for output, found in row["smoke"].items()
    ]
    return table(_headings(words, "output", *keys), rows)


def versions(document: Mapping[str, Any], shown: Iterable[str], words: Words) -> str:
    """Lay out what was installed."""
    found = document["environment"]
    rows = [
        [key, escaped(str(found[key]))] for key in shown if found.get(key, "not installed") != "not installed"
    ]
    return table(_headings(words, "component", "version"), rows)


def settings(evidence: DeviceEvidence, words: Words) -> str:
    """Lay out how a device was set to compute; nothing where it has nothing to set."""
    rows = [[code(key), code(str(value))] for key, value in evidence.settings.items()]
    return table(_headings(words, "setting", "figures"), rows)


def published(rows: Sequence[Row], words: Words) -> str:
    """Lay out what others have published: a table of its own, never among one's own figures."""
    cells = [
        [
            escaped(row["device"]),
            code(row["variant"]),
            code(row["output"]) if row["output"] else f"{words.say('headings', 'batch')} {row['batch']}",
            ", ".join(f"{key} {value:g}" for key, value in row["figures"].items()),
            escaped(row["source"]),
        ]
        for row in rows
    ]
    return table(_headings(words, "device", "variant", "what", "figures", "source"), cells)


def _headings(words: Words, *keys: str) -> list[str]:
    return [words.say("headings", key) for key in keys]
