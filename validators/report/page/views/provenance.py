"""The costs, the checks, the published figures, and the provenance of a validation."""

from __future__ import annotations

from collections import Counter
from typing import Any

from vconv.validators.report import sentences
from vconv.validators.report.document import Report
from vconv.validators.report.page import figures
from vconv.validators.report.page.views.base import CODE, NUMBER, STATUS, Column, Table, numbers
from vconv.validators.report.rows import VariantRow

_MEASURED = {"isolated": "own process", "in process": "shared process"}
"""By the place where peak memory was measured: its description."""


def costs(report: Report) -> dict[str, Any]:
    """Lay out launches, memory, and the times before the steady state."""
    rows = tuple(_cost(row) for row in report.variants)
    named = (
        Column("variant"),
        *numbers("load, ms", "first run, ms", "launches", "peak memory", "grown by", "on the device"),
        Column("memory measured"),
        *numbers("threads"),
        Column("GELU"),
    )
    operators = tuple(
        (
            sentences.short_name(row),
            ", ".join(f"{count} {name}" for name, count in found.operators.items()),
        )
        for row in report.variants
        if (found := row.launches)
    )
    return {
        "table": Table("Cost of each variant", named, rows),
        "operators": Table("Launched for one image", (Column("variant"), Column("operators")), operators),
        "fallbacks": [told for row in report.variants if (told := sentences.fallbacks(row))],
    }


def _cost(row: VariantRow) -> tuple[str, ...]:
    launches = row.launches
    simulated = " (simulated)" * row.simulated
    return (
        sentences.short_name(row),
        figures.number(row.load_ms),
        figures.number(row.first_ms),
        f"{launches.total:,} {launches.how}" if launches else figures.DASH,
        figures.size(row.peak_rss_bytes),
        figures.size(row.peak_rss_growth_bytes),
        figures.size(row.peak_device_bytes),
        row.peak_memory_reason or _MEASURED.get(row.peak_memory_is or "", figures.DASH),
        str(row.threads or figures.DASH),
        f"{row.gelu}{simulated}" if row.gelu else figures.DASH,
    )


def checks(report: Report) -> dict[str, Any]:
    """Lay out the checks: those that did not pass, and those that passed, in separate tables."""
    named = (Column("check"), Column("status", STATUS), Column("finding"))
    laid = [(check.name, check.status.value, check.detail) for check in report.checks]
    counts = Counter(check.status.value for check in report.checks)
    return {
        "told": ", ".join(
            f"{counts[status]} {status}" for status in ("passed", "failed", "skipped") if counts[status]
        ),
        "failed": Table("Checks that failed", named, tuple(row for row in laid if row[1] == "failed")),
        "skipped": Table(
            "Checks that were skipped", named, tuple(row for row in laid if row[1] == "skipped")
        ),
        "passed": Table("Checks that passed", named, tuple(row for row in laid if row[1] == "passed")),
    }


def published(report: Report) -> Table | None:
    """Lay out the figures that others have published; None if there are none."""
    rows = tuple(
        (
            row.variant,
            row.device,
            row.output or f"batch {row.batch}",
            ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in row.figures.items()),
            row.source,
        )
        for row in report.published
    )
    named = tuple(map(Column, ("variant", "device", "what", "figures", "source")))
    return Table("Published by others, not measured here", named, rows) if rows else None


def provenance(report: Report, file: str, sha256: str) -> dict[str, Any]:
    """Lay out the files, software and devices of a report, and the hashes that identify its inputs."""
    settings = tuple(
        (
            name,
            model,
            ", ".join(f"{key}: {value}" for key, value in report.device_settings[name].items()) or "none",
        )
        for name, model in report.devices.items()
    )
    made = report.manifest
    held = made.files.items() if made else [(graph.path, graph) for graph in report.graphs]
    files = tuple((name, figures.size(one.nbytes), one.sha256) for name, one in held)
    limits_file = report.limits.file
    hashes = [(f"this report as JSON, {file}", sha256)]
    hashes += [("the manifest, vconv.json", made.sha256)] if made else []
    hashes += [(f"the limits, {limits_file.path}", limits_file.sha256)] if limits_file else []
    environment = tuple((name, str(value)) for name, value in report.environment.items())
    return {
        "hashes": Table("sha256", (Column("of"), Column("sha256", CODE)), tuple(hashes)),
        "files": Table(
            "Files of the artifact, as its manifest has them" if made else "The graphs that were judged",
            (Column("file"), Column("size", NUMBER), Column("sha256", CODE)),
            files,
        ),
        "environment": Table("Environment", (Column("what"), Column("version", CODE)), environment),
        "settings": Table("Devices", tuple(map(Column, ("device", "model", "settings"))), settings),
    }
