"""The verdict: the judged variants, the reference and limits, and the result."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from vconv.types import Status, weights_named
from vconv.validators.report import sentences
from vconv.validators.report.document import LimitsUsed, Ranking, Report
from vconv.validators.report.page import figures
from vconv.validators.report.rows import VariantRow

_STAMP = "%Y%m%dT%H%M%S"
_METRIC = "vector_relative_error"


def verdict(report: Report) -> dict[str, Any]:
    """Lay out the top of the page."""
    return {
        "status": report.status,
        "headline": _headline(report),
        "stats": _stats(report),
        "facts": _facts(report),
        "failures": _failures(report),
        "diagnosis": report.diagnosis,
        "simulated": sorted({row.device for row in report.variants if row.device_simulated}),
    }


def date(stamp: str) -> str:
    """Format a report's time for readers."""
    return datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC).strftime("%-d %B %Y, %H:%M UTC")


def _headline(report: Report) -> str:
    judged = [row for row in report.variants if row.judged]
    failed = [row for row in judged if row.status is Status.FAILED]
    checks = [check for check in report.checks if check.status is Status.FAILED]
    if failed or checks:
        parts = [f"{len(failed)} of {_count(len(judged), 'judged variant')} failed"] if failed else []
        parts += [f"{_count(len(checks), 'check')} failed"] if checks else []
        return " and ".join(parts)
    if not judged:
        return "nothing was judged, so that nothing is proven"
    within = report.limits.within
    return f"all {_count(len(judged), 'judged variant')} kept to the reference, within {within} limits"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _facts(report: Report) -> list[tuple[str, str]]:
    reference = report.reference
    name = f"{reference.name}: " if reference.name else ""
    inputs = report.inputs
    devices = "; ".join(f"{name}: {model}" for name, model in report.devices.items())
    found = [
        ("Weights", weights_named(report.weights, report.synthetic)),
        (
            "Reference",
            f"{name}{sentences.reference(reference)} ({reference.precision} on {reference.device})",
        ),
        ("Limits", "; ".join(_limits(report.limits))),
        ("Images", f"{inputs.source}: {', '.join(inputs.images) or figures.DASH}"),
        ("Devices", devices or figures.DASH),
        ("Validated", f"{date(report.time)}, on {report.host}"),
    ]
    return [(term, value) for term, value in found if value]


def _limits(limits: LimitsUsed) -> list[str]:
    pairs = [
        f"{figures.bound(row.bounds[_METRIC])} for {sentences.computed(row.precision, row.arithmetic)}"
        for row in limits.rows
        if _METRIC in row.bounds
    ]
    return [limits.within + (f": vector relative error at most {', '.join(pairs)}" if pairs else "")]


def _stats(report: Report) -> list[dict[str, str]]:
    """List the most important figures."""
    judged = [row for row in report.variants if row.judged]
    passed = sum(row.passed for row in judged)
    states = [check.status.value for check in report.checks]
    unsound = ", ".join(f"{states.count(one)} {one}" for one in ("failed", "skipped") if one in states)
    sound = states.count("passed")
    apart = [row for row in report.variants if not row.judged]
    measured = sum(bool(row.outputs) for row in apart)
    short = sum(row.status == "incomplete" for row in apart)
    counts = {
        "measured, not judged": measured,
        "out of memory": short,
        "skipped": len(apart) - measured - short,
    }
    others = "; ".join(f"{count} {what}" for what, count in counts.items() if count)
    found = [
        (
            "judged variants passed",
            f"{passed} of {len(judged)}",
            others,
        ),
        *_closest(judged),
        ("checks passed", f"{sound} of {len(report.checks)}", unsound),
        *_fastest(report.ranking),
    ]
    return [{"what": what, "value": value, "aside": aside} for what, value, aside in found]


def _closest(judged: list[VariantRow]) -> list[tuple[str, str, str]]:
    """Return the figure for the output with the largest share of its limit; empty if there is none."""
    shares = [
        (error / output.limit, sentences.short_name(row), name, error, output.limit)
        for row in judged
        for name, output in row.outputs.items()
        if (error := output.vector_relative_error) is not None and output.limit
    ]
    if not shares:
        return []
    if any(
        output.status is Status.FAILED and output.vector_relative_error is None
        for row in judged
        for output in row.outputs.values()
    ):
        return [("an output", "no number", "or it could not be compared")]
    share, variant, name, error, limit = max(shares, key=lambda one: one[0])
    of = f"{figures.error(error)} of {figures.bound(limit)}"
    what, value = "of a limit used, at most", f"{figures.number(100 * share)} %"
    if share > 1:
        what, value = "a limit, at worst", f"{figures.number(share)} times"
    return [(what, value, f"{name} of {variant}: {of}")]


def _fastest(ranking: Ranking) -> list[tuple[str, str, str]]:
    if ranking.refused or not ranking.rows:
        return [("speed", "not ranked", ranking.refused or "")]
    first = ranking.rows[0]
    where = f"{first.variant} ({first.engine}), {first.device}, batch {first.batch}"
    return [("fastest median", f"{figures.number(first.p50_ms)} ms", where)]


def _failures(report: Report) -> list[dict[str, Any]]:
    found = [
        {"name": sentences.short_name(row), "reasons": reasons(row)}
        for row in report.variants
        if row.status is Status.FAILED
    ]
    found += [
        {"name": f"check: {check.name}", "reasons": [check.detail]}
        for check in report.checks
        if check.status is Status.FAILED
    ]
    return found


def reasons(row: VariantRow) -> list[str]:
    """List the reasons why a variant did not pass."""
    told = [f"{name}: {why}" for name, output in row.outputs.items() for why in output.reasons]
    return told + [row.reason] * bool(row.reason)
