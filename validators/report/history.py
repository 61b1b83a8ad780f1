"""What has been found out about an artifact so far: its reports, and the newest of each kind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from vconv.artifact import results
from vconv.errors import ArtifactError
from vconv.types import Status

TIME = "%Y%m%dT%H%M%S"
_BEST = ("variant", "engine", "device", "batch", "p50_ms")
SHAPE = (KeyError, TypeError, ValueError, AttributeError)
"""What looking into a report of another shape raises."""


@dataclass(frozen=True)
class ReportEntry:
    """A report, as the index has it, and what :func:`newest` has read in it.

    Args:
        file: where it is, inside the artifact.
        sha256: its hash, when it was entered.
        kind: what was done: ``validate``, ``compare``, ``bisect``.
        status: how it ended.
        simulated: whether a device was simulated.
        artifact: what the report calls this artifact.
        manifest: the hash of the manifest that the artifact had.
        time: when, in UTC: ``20261121T184025``.
        devices: where variants were run.
        fastest: by device, the variant that passed with the least median at the least batch; none where
            nothing was timed.
        ranked: whether the samples tell that it is the fastest.
        winner: the winner of a comparison, or None; it may be another artifact's.
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
    fastest: tuple[Mapping[str, Any], ...] = ()
    ranked: bool = False
    winner: Mapping[str, Any] | None = None
    trouble: str = ""


def newest(folder: Path) -> tuple[list[dict[str, Any]], str]:
    """List the newest reports of an artifact, one a kind, the newest first.

    Args:
        folder: the artifact.

    Returns:
        One :class:`ReportEntry` each, as plain data; and why the index cannot be read, empty if it can.
    """
    try:
        found = entries(folder)
    except ArtifactError as error:
        return [], f"{error.what}: {error.fix}"
    last: dict[tuple[str, bool], ReportEntry] = {}
    for entry in found:
        last.setdefault((entry.kind, entry.simulated), entry)
    return [asdict(_read(folder, entry)) for entry in last.values()], ""


def entries(folder: Path) -> list[ReportEntry]:
    """List what an artifact's index names, the newest first; nothing of a report itself is read.

    Raises:
        ArtifactError: the index is damaged, or cannot be read.
    """
    try:
        found = [_entry(row) for row in results.read(folder)["reports"]]
    except (KeyError, TypeError, ValueError) as error:
        raise results.damaged(folder) from error
    return sorted(reversed(found), key=lambda entry: entry.time, reverse=True)


def _entry(row: Mapping[str, Any]) -> ReportEntry:
    named = results.NAMED.fullmatch(row["file"])
    if named is None:
        raise ValueError(f"{row['file']} is no report")
    time, kind = named.groups()
    datetime.strptime(time, TIME)
    status, artifact, manifest = str(Status(row["status"])), row.get("artifact", ""), row.get("manifest", "")
    return ReportEntry(row["file"], row["sha256"], kind, status, row["simulated"], artifact, manifest, time)


def read(folder: Path, entry: ReportEntry) -> tuple[dict[str, Any], str]:
    """Read a report; return nothing, and why, where it is not the one that was entered."""
    try:
        raw = (folder / entry.file).read_bytes()
        if hashlib.sha256(raw).hexdigest() != entry.sha256:
            return {}, "was changed"
        return dict(json.loads(raw)), ""
    except OSError as error:
        return {}, error.strerror or "cannot be read"
    except (TypeError, ValueError):
        return {}, "is not understood"


def variants(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a report's rows: a variant each, or a variant and batch of a comparison."""
    return list(document.get("variants", document.get("rows", ())))


def own(entry: ReportEntry, rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Keep the rows of this artifact: a comparison has those of others, too."""
    return [row for row in rows if row["artifact"] == entry.artifact]


def _read(folder: Path, entry: ReportEntry) -> ReportEntry:
    """Look into a report; say so where it is not the one that was entered."""
    document, trouble = read(folder, entry)
    if trouble:
        return replace(entry, trouble=trouble)
    try:
        rows = variants(document)
        devices = document.get("devices") or dict.fromkeys(row["device"] for row in rows)
        return replace(
            entry,
            devices=tuple(devices) or (document["device"],),
            fastest=tuple(_fastest(own(entry, rows))),
            ranked=bool(document.get("ranking", {}).get("rows")),
            winner=document.get("winner"),
        )
    except SHAPE:
        return replace(entry, trouble="is not understood")


def _fastest(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield for each device the least median at its least batch, of variants that passed."""
    timed = [
        {**row, **timing}
        for row in rows
        for timing in row.get("latency", [row] if row.get("p50_ms") else [])
        if row["status"] == Status.PASSED
    ]
    for device in dict.fromkeys(row["device"] for row in timed):
        own = [row for row in timed if row["device"] == device]
        least = min(own, key=lambda row: (row["batch"], row["p50_ms"]))
        yield {key: least[key] for key in _BEST}
