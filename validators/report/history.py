"""The reports of an artifact so far, and the newest of each kind."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from vconv import documents
from vconv.artifact import results
from vconv.artifact.results import IndexEntry
from vconv.errors import ArtifactError
from vconv.validators.report.bisection import Bisection
from vconv.validators.report.comparison import Comparison
from vconv.validators.report.document import RankRow, Report, Winner
from vconv.validators.report.rows import VariantName
from vconv.validators.report.upgrade import UnreadableReportError, read_report

NOT_UNDERSTOOD = "is not understood"


@dataclass(frozen=True)
class FastestVariant:
    """The variant with the least median on its device, in milliseconds per batch."""

    variant: str
    engine: str
    device: str
    batch: int
    p50_ms: float


@dataclass(frozen=True)
class ReportEntry:
    """A report: its entry in the index, and the fields that :func:`newest` reads from the report.

    Args:
        file: its path inside the artifact.
        sha256: its hash when it was entered in the index.
        kind: the command that made it: ``validate``, ``compare`` or ``bisect``.
        status: the status of the report.
        simulated: whether a device was simulated.
        artifact: the name of this artifact in the report.
        manifest: the hash of the artifact's manifest at that time.
        time: its time, in UTC: ``20261121T184025``.
        devices: the devices on which variants were run.
        fastest: for each device, the first variant of the ranking at the least ranked batch.
        ranked: whether the report has a ranking.
        not_ranked: why there is no ranking; empty if there is one.
        winner: the winner of a comparison, or None; it may belong to another artifact.
        trouble: why the report cannot be read; empty if it can.
    """

    file: str
    sha256: str
    kind: str
    status: str
    simulated: bool
    artifact: str
    manifest: str
    time: str
    devices: tuple[str, ...] = ()
    fastest: tuple[FastestVariant, ...] = ()
    ranked: bool = False
    not_ranked: str = ""
    winner: Winner | None = None
    trouble: str = ""


def newest(folder: Path) -> tuple[list[dict[str, Any]], str]:
    """List an artifact's newest reports, the newest first: one per kind, simulated or not.

    Args:
        folder: the artifact.

    Returns:
        One :class:`ReportEntry` per report, as plain data; and the trouble with the index, if any.
    """
    try:
        found, troubles = entries(folder)
    except ArtifactError as error:
        return [], f"{error.what}: {error.got}; {error.fix}"
    last: dict[tuple[str, bool], ReportEntry] = {}
    for entry in found:
        last.setdefault((entry.kind, entry.simulated), entry)
    return [_plain(_read(folder, entry)) for entry in last.values()], "; ".join(troubles)


def _plain(entry: ReportEntry) -> dict[str, Any]:
    return {**asdict(entry), "winner": entry.winner.as_json() if entry.winner else None}


def entries(folder: Path) -> tuple[list[ReportEntry], list[str]]:
    """List the reports in an artifact's index, the newest first, without reading the reports.

    Returns:
        The reports; and one sentence for the damaged entries, if there are any: they are left out.

    Raises:
        ArtifactError: the index as a whole is damaged, or cannot be read.
    """
    found, troubles = [], []
    for place, content in enumerate(results.read(folder)["reports"], start=1):
        try:
            found.append(_entry(results.entry(content)))
        except ValueError as error:
            troubles.append(f"entry {place} ({error})")
    others = f" and {len(troubles) - 1} others" if len(troubles) > 1 else ""
    told = (
        [f"left out of {folder / results.RESULTS_FILE}, damaged: {troubles[0]}{others}"] if troubles else []
    )
    return sorted(reversed(found), key=lambda entry: entry.time, reverse=True), told


def _entry(row: IndexEntry) -> ReportEntry:
    return ReportEntry(
        row.file, row.sha256, row.kind, row.status, row.simulated, row.artifact, row.manifest, row.time
    )


def read(folder: Path, entry: ReportEntry) -> tuple[Report | Comparison | Bisection | None, str]:
    """Read a report; return None and the reason if it is unreadable or was changed after it was entered."""
    path = folder / entry.file
    try:
        raw = documents.read(path, documents.REPORT)
        if hashlib.sha256(raw).hexdigest() != entry.sha256:
            return None, "was changed"
        return read_report(documents.parse(path, raw, documents.REPORT), entry.kind), ""
    except ArtifactError as error:
        return None, error.got
    except UnreadableReportError as error:
        return None, f"{NOT_UNDERSTOOD}: {error}"


Row = TypeVar("Row", bound=VariantName)


def own(entry: ReportEntry, rows: Iterable[Row]) -> list[Row]:
    """Return the rows of this artifact: a comparison also has rows of other artifacts."""
    return [row for row in rows if row.artifact == entry.artifact]


def _read(folder: Path, entry: ReportEntry) -> ReportEntry:
    """Add the fields that are read from the report; set ``trouble`` if it cannot be read."""
    report, trouble = read(folder, entry)
    if report is None:
        return replace(entry, trouble=trouble)
    if isinstance(report, Bisection):
        return replace(entry, devices=(report.device,))
    return replace(
        entry,
        devices=tuple(report.devices),
        fastest=tuple(_fastest(own(entry, report.ranking.rows))),
        ranked=bool(report.ranking.rows),
        not_ranked=report.ranking.refused or "",
        winner=report.winner if isinstance(report, Comparison) else None,
    )


def _fastest(rows: Sequence[RankRow]) -> Iterator[FastestVariant]:
    """Yield for each device the first variant of the ranking at the least ranked batch."""
    for device in dict.fromkeys(row.device for row in rows):
        ranked = [row for row in rows if row.device == device and row.rank is not None]
        if ranked:
            best = min(ranked, key=lambda row: (row.batch, row.p50_ms))
            yield FastestVariant(best.variant, best.engine, best.device, best.batch, best.p50_ms)
