"""The log in plain text: what was done, and every figure of the report, for reading without a tool."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from vconv.progress import Counted
from vconv.types import Say, weights_named
from vconv.validators.accuracy.metrics import METRICS
from vconv.validators.report import sentences

_LATENCY = (
    *("runs", "mean_ms", "std_ms", "min_ms", "max_ms", "p50_ms", "p50_ms_interval", "p90_ms", "p99_ms"),
    *("ms_per_image", "images_per_second", "speed_up_over_cpu"),
)
_COSTS = (
    *("load_ms", "first_ms", "peak_memory_is", "peak_rss_bytes", "peak_rss_growth_bytes"),
    "peak_device_bytes",
)
_SAMPLES = "samples_ms"
"""In the report alone: nobody reads a hundred samples."""
_VERDICT = ("floor", "limit", *METRICS, "to_stock_original")
_WORST = ("cosine", "relative_error", "vector_relative_error", "share_of_limit")
_SMOKE = ("shape", "dtype", "device", "min", "max", "mean", "first")


class Log:
    """Passes lines of progress on, and keeps them with the time at which they came.

    How far something was, and how long it was to take, is not kept: nobody reads that afterwards.

    Args:
        say: takes a line of progress.
    """

    def __init__(self, say: Say) -> None:
        self._say, self._start = say, time.perf_counter()
        self._lines: list[str] = []

    def say(self, line: str) -> None:
        """Take one line."""
        if not isinstance(line, Counted):
            self._lines.append(f"{time.perf_counter() - self._start:8.1f} s  {line}")
        self._say(line)

    def render(self, report: Mapping[str, Any]) -> str:
        """Write down what was done and what was found."""
        return "\n".join([*self._lines, "", *_lines(report)]) + "\n"

    def render_comparison(self, report: Mapping[str, Any]) -> str:
        """Write down what was done and what a comparison found, one line a row."""
        rows = [
            ", ".join(f"{key} {_number(value)}" for key, value in row.items() if key != _SAMPLES)
            for row in report["rows"]
        ]
        checks = [
            f"{check['status']:<10} {check['artifact']}: {check['name']}: {check['detail']}"
            for check in report["checks"]
        ]
        weights = [
            f"weights of {path}: {label}; reference {report['references'][path]}; {report['statuses'][path]}"
            for path, label in report["weights"].items()
        ]
        limits = _limits(report["limits"])
        found = [_machine(report), *sentences.ranks(report["ranking"]), sentences.winner(report), *checks]
        return "\n".join([*self._lines, "", *weights, *limits, *rows, "", *found, report["status"]]) + "\n"

    def render_bisection(self, report: Mapping[str, Any]) -> str:
        """Write down what was done and where a variant departs."""
        return "\n".join([*self._lines, "", *_bisection(report)]) + "\n"


def _bisection(report: Mapping[str, Any]) -> Iterator[str]:
    yield f"artifact   {report['artifact']}"
    yield f"weights    {weights_named(report['weights'], report['synthetic'])}"
    simulated = ", simulated" if report["simulated"] else ""
    yield f"variant    {report['variant']} ({report['engine']}, {report['device']}{simulated})"
    yield f"reference  {report['reference']['name']}, fp32 on cpu"
    yield f"inputs     {report['inputs']['source']}: {', '.join(report['inputs']['images'])}"
    for note in report["notes"]:
        yield f"note       {note}"
    for row in report["stages"]:
        own, total = _number(row["own"]), _number(row["total"])
        yield f"  {row['stage']}: {own} in this stage alone, {total} accumulated"
    yield f"operators of {report['worst_stage']}:"
    for row in report["operators"]:
        named = f"{row['operator']} {row['node']} {_number(list(row['shape']))}"
        agrees = "agrees" if row["agrees"] else "departs"
        weights = f", on {', '.join(row['weights'])}" if row["weights"] else ""
        yield f"  {agrees}  {_number(row['error'])}  {named}{weights}; nearest: {row['counterpart'] or '-'}"
    yield ""
    yield report["sentence"]
    yield f"{report['status']}, within {_number(report['bound'])}"


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    yield f"artifact   {report['artifact']}"
    yield f"weights    {weights_named(report['weights'], report['synthetic'])}"
    reference = report["reference"]
    where = f"{reference['precision']} on {reference['device']}"
    yield f"reference  {reference['name']}, {reference['source']}, {where}"
    if reference.get("recorded"):
        yield f"           {sentences.reference(reference)}"
    inputs = report["inputs"]
    yield f"inputs     {inputs['source']}: {', '.join(inputs['images']) or '-'}"
    made = report["manifest"]
    yield f"manifest   sha256 {made['sha256']}, by vconv {made['vconv']}"
    for name, file in made["files"].items():
        yield f"  {name}: {file['nbytes']} bytes, sha256 {file['sha256']}"
    for name, model in report["devices"].items():
        yield f"device     {name}: {model}"
        for setting, value in report["device_settings"][name].items():
            yield f"  {setting}: {value}"
    for name, version in report["environment"].items():
        yield f"{name:<16} {version}"
    yield f"preprocessing    {_number(report['preprocessing_ms_per_image'])} ms an image"
    if report["speed_up_baseline"]:
        yield f"speed-ups are over {report['speed_up_baseline']}"
    yield from _limits(report["limits"])
    for row in report["variants"]:
        yield from _variant(row)
    if report.get("dataset"):
        yield from _dataset(report["dataset"])
    yield ""
    yield _machine(report)
    yield from sentences.ranks(report["ranking"])
    for row in report["published"]:
        yield _published(row)
    for check in report["checks"]:
        yield f"{check['status']:<10} {check['name']}: {check['detail']}"
    for row in report["diagnosis"]:
        yield f"diagnosis  {row['class']}: {row['meaning']} ({row['where']}: {row['because']})"
    yield ""
    yield f"{report['status']}, within {report['limits']['within']} limits"


def _limits(limits: Mapping[str, Any]) -> Iterator[str]:
    file = limits["file"]
    yield f"limits     {limits['within']}" + (f", sha256 {file['sha256']}" if file else "")
    for row in limits["rows"]:
        bounds = ", ".join(f"{metric} {_number(bound)}" for metric, bound in row["bounds"].items())
        yield f"  {row['precision']} on {row['arithmetic']}: {bounds} ({row['source']})"


def _variant(row: Mapping[str, Any]) -> Iterator[str]:
    simulated = ", simulated" if row["simulated"] else ""
    yield ""
    yield f"{row['variant']} ({row['engine']}, {row['device']}{simulated}): {row['status']}"
    if row.get("reason"):
        yield f"  {row['reason']}"
    if row.get("batches"):
        batches = " and ".join(map(str, row["batches"]))
        yield f"  judged in {row['precision']} on {row['arithmetic']} at batch {batches}"
    for name in {**row["outputs"], **row["smoke"]}:
        verdict, block = row["outputs"].get(name, {}), row["smoke"].get(name, {})
        yield f"  {name}: {verdict.get('status', '-')}, {_number(verdict.get('shape'))}"
        for figures, keys in ((block, _SMOKE), (verdict, _VERDICT)):
            shown = [f"{key} {_number(figures[key])}" for key in keys if key in figures]
            if shown:
                yield "    " + ", ".join(shown)
        for reason in verdict.get("reasons", ()):
            yield f"    {reason}"
    yield from _prediction(row)
    if warning := sentences.fallbacks(row):
        yield f"  warning: {warning}"
    yield "  " + ", ".join(f"{key} {_number(row.get(key))}" for key in _COSTS)
    if row.get("peak_memory_reason"):
        yield f"  memory not measured: {row['peak_memory_reason']}"
    if row["launches"]:
        yield f"  launches: {_launches(row['launches'])}"
    yield from _beside(row)
    if row["timing_refused"]:
        yield f"  not timed: {row['timing_refused']}"
    for timing in row["latency"]:
        figures = [f"{key} {_number(timing.get(key))}" for key in _LATENCY]
        yield f"  batch {timing['batch']}: " + ", ".join(figures)
        yield from (f"    warning: {warning}" for warning in timing["warnings"])
    for skipped in row["skipped_batches"]:
        yield f"  batch {skipped['batch']}: not timed, {skipped['reason']}"


def _beside(row: Mapping[str, Any]) -> Iterator[str]:
    """Lay out what was looked at beside judging: the error after each stage, and patch by patch."""
    if row.get("depth"):
        after = ", ".join(f"{one['stage']} {_number(one['error'])}" for one in row["depth"])
        yield f"  error against depth, on the first image: {after}"
    for one in row.get("patch_maps") or ():
        yield f"  patches of {one['image']}: largest difference {_number(one['largest'])}"
    for name in ("depth", "patch_maps"):
        if row.get(f"{name}_reason"):
            yield f"  no {name.replace('_', ' ')}: {row[f'{name}_reason']}"


def _prediction(row: Mapping[str, Any]) -> Iterator[str]:
    """Lay out what a simulated device predicts; nothing for a real one."""
    found = row["prediction"]
    if row["gelu"]:
        yield f"  GELU: {row['gelu']}" + " (simulated)" * row["simulated"]
    if not found:
        return
    arithmetic = ", ".join(f"{name} {how}" for name, how in found["arithmetic"].items())
    changed = ", ".join(f"{count} {cause}" for cause, count in found["changed"].items())
    of = f"{found['executed']} {sentences.executed(row)}"
    yield f"  predicted by simulation: {arithmetic}; of {of}, changed: {changed}"
    parts = {"predicted in all": found["outputs"], "the rest": found["rest"]}
    parts |= {f"{cause} alone": one["outputs"] for cause, one in found["causes"].items()}
    for part, outputs in parts.items():
        for name, errors in outputs.items():
            figures = ", ".join(f"{key} {_number(value)}" for key, value in errors.items())
            yield f"    {part} (simulated), {name}: {figures}"


def _dataset(found: Mapping[str, Any]) -> Iterator[str]:
    """Lay out what was found on a folder of images."""
    resumed = ", resumed" * found["resumed"]
    yield ""
    yield f"data set {found['folder']}: {sentences.images(found)}, {_number(found['seconds'])} s{resumed}"
    yield f"neighbours by {found['neighbours_of']}, shared by chance: {_number(found['agreement_by_chance'])}"
    for row in found["variants"]:
        yield f"{_placed(row)}: {row['status']}" + f": {row['reason']}" * bool(row["reason"])
        for name, output in row["outputs"].items():
            limit = f"limit {_number(output['limit'])}, beyond {_number(output['beyond'])}"
            yield f"  {name}: compared {output['compared']}, {limit}"
            for metric, shares in output.items():
                if isinstance(shares, Mapping):
                    figures = (f"{key} {_number(value)}" for key, value in shares.items())
                    yield f"    {metric}: {', '.join(figures)}"
        near = row["neighbours"]
        agrees = _number(near["agreement"])
        yield f"  share of the {near['k']} nearest neighbours that are the reference's: {agrees}"
        if row["top1_agreement"] is not None:
            yield f"  share of images with the reference's first class: {_number(row['top1_agreement'])}"
    for pair in found["neighbours_between"]:
        yield f"neighbours shared by {pair['first']} and {pair['second']}: {_number(pair['agreement'])}"
    for row in found["worst"]:
        figures = (f"{key} {_number(row[key])}" for key in _WORST)
        yield f"worst      {row['image']}: {_placed(row)}, {row['output']}: {', '.join(figures)}"
    for row in found["skipped"]:
        yield f"skipped    {row['image']}: {row['reason']}"


def _placed(row: Mapping[str, Any]) -> str:
    return f"{row['variant']} ({row['engine']}, {row['device']}{', simulated' * row['simulated']})"


def _launches(found: Mapping[str, Any]) -> str:
    operators = ", ".join(f"{name} {number}" for name, number in found["operators"].items())
    return f"for one image {found['total']} {found['how']}; operators: {operators}"


def _machine(report: Mapping[str, Any]) -> str:
    machine = report["machine"]
    state = {True: "busy", False: "quiet", None: "unknown"}[machine["busy"]]
    cores = ", ".join(f"{key} {_number(machine[key])}" for key in ("others_cores", "steal_cores"))
    return f"machine while variants were timed: {state}, {cores}, {machine['reason']}"


def _published(row: Mapping[str, Any]) -> str:
    what = f"batch {row['batch']}" if row["batch"] else row["output"]
    figures = ", ".join(f"{key} {_number(value)}" for key, value in row["figures"].items())
    return f"published  {row['variant']} on {row['device']}, {what}: {figures} ({row['source']})"


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return f"[{', '.join(map(_number, value))}]"
    return "-" if value is None else str(value)
