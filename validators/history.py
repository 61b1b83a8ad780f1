"""What has been found out about an artifact so far: the newest of its reports."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from vconv.errors import ArtifactError
from vconv.types import Status
from vconv.validators import index

TIME = "%Y%m%dT%H%M%S"
_BEST = ("variant", "engine", "device", "batch", "p50_ms")
_DAMAGED = (KeyError, TypeError, ValueError, AttributeError, OSError)
"""What reading a file of another shape raises."""
_RANKED = ("validate", "compare")
"""Kinds of reports that rank variants."""


@dataclass(frozen=True)
class Entry:
    """The newest report of its kind, and of real or simulated devices.

    Args:
        file: where it is, inside the artifact.
        sha256: its hash, when it was entered.
        kind: what was done: ``validate``, ``compare``, ``bisect``.
        status: how it ended.
        simulated: whether a device was simulated.
        artifact: what the report calls this artifact; empty in an old index.
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
        One :class:`Entry` each, as plain data; and why the index cannot be read, empty if it can.
    """
    try:
        found = _entries(folder)
    except ArtifactError as error:
        return [], f"{error.what}: {error.fix}"
    except _DAMAGED as error:
        return [], f"{folder / index.RESULTS_FILE} is damaged: {error}"
    last: dict[tuple[str, bool], Entry] = {}
    for entry in found:
        last.setdefault((entry.kind, entry.simulated), entry)
    return [asdict(_read(folder, entry)) for entry in last.values()], ""


def ranked(folder: Path, kind: str) -> list[dict[str, Any]]:
    """List an artifact's variants in the order of the newest ranking on a kind of device, the fastest first.

    It is that of the least batch that was ranked. Variants that failed in a later report on that kind of
    device are left out; reports that are missing or were changed count for nothing.

    Args:
        folder: the artifact.
        kind: the kind of device: ``cpu``, ``cuda``, ``npu``.

    Returns:
        ``variant``, ``engine``, ``device``, ``batch`` and ``p50_ms`` of each; none where nothing was ranked.

    Raises:
        ArtifactError: the index is damaged.
    """
    try:
        entries = [entry for entry in _entries(folder) if entry.kind in _RANKED and not entry.simulated]
    except _DAMAGED as error:
        raise index.damaged(folder) from error
    failed: set[tuple[str, str]] = set()
    for entry in entries:
        document, _ = _document(folder, entry)
        try:
            judged = [row for row in _own(entry, document, _rows(document)) if _on(kind, row)]
            failed |= {(row["variant"], row["engine"]) for row in judged if row["status"] == Status.FAILED}
            order = _own(entry, document, document["ranking"]["rows"]) if document else []
            placed = [row for row in order if _on(kind, row) and row["rank"] is not None]
            least = min((row["batch"] for row in placed), default=None)
            found = [{key: row[key] for key in _BEST} for row in placed if row["batch"] == least]
        except _DAMAGED:
            continue
        kept = [row for row in found if (row["variant"], row["engine"]) not in failed]
        if kept:
            return kept
    return []


def _on(kind: str, row: Mapping[str, Any]) -> bool:
    return str(row["device"]).partition(":")[0] == kind


def _entries(folder: Path) -> list[Entry]:
    """Read the index, the newest report first."""
    entries = [_entry(row) for row in index.read(folder)["reports"]]
    return sorted(reversed(entries), key=lambda entry: entry.time, reverse=True)


def _entry(row: Mapping[str, Any]) -> Entry:
    named = index.NAMED.fullmatch(row["file"])
    if named is None:
        raise ValueError(f"{row['file']} is no report")
    time, kind = named.groups()
    datetime.strptime(time, TIME)
    status, artifact = str(Status(row["status"])), row.get("artifact", "")
    return Entry(row["file"], row["sha256"], kind, status, row["simulated"], artifact, time)


def _document(folder: Path, entry: Entry) -> tuple[dict[str, Any], str]:
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


def _rows(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list(document.get("variants", document.get("rows", ())))


def _own(
    entry: Entry, document: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Keep the rows of this artifact: a comparison has those of others, too."""
    several = len({row.get("artifact") for row in _rows(document)}) > 1
    return [row for row in rows if not several or row["artifact"] == entry.artifact]


def _read(folder: Path, entry: Entry) -> Entry:
    """Look into a report; say so where it is not the one that was entered."""
    document, trouble = _document(folder, entry)
    if trouble:
        return replace(entry, trouble=trouble)
    try:
        rows = _rows(document)
        devices = document.get("devices") or dict.fromkeys(row["device"] for row in rows)
        return replace(
            entry,
            devices=tuple(devices) or (document["device"],),
            fastest=tuple(_fastest(_own(entry, document, rows))),
            ranked=bool(document.get("ranking", {}).get("rows")),
            winner=document.get("winner"),
        )
    except _DAMAGED:
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
