"""What has been found out about an artifact so far: the newest of its reports."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from vconv.errors import ArtifactError
from vconv.types import Status
from vconv.validators import index

TIME = "%Y%m%dT%H%M%S"
_BEST = ("variant", "engine", "device", "batch", "p50_ms")


@dataclass(frozen=True)
class Entry:
    """The newest report of its kind, and of real or simulated devices.

    Args:
        file: where it is, inside the artifact.
        sha256: its hash, when it was entered.
        kind: what was done: ``validate``, ``compare``, ``bisect``.
        status: how it ended.
        simulated: whether a device was simulated.
        time: when, in UTC: ``20261121T184025``.
        devices: where variants were run.
        fastest: by device, the variant that passed with the least median at the least batch; none where
            nothing was timed.
        ranked: whether the samples tell that it is the fastest.
        winner: the winner of a comparison, or None.
        trouble: why the report cannot be read; empty if it can.
    """

    file: str
    sha256: str
    kind: str
    status: str
    simulated: bool
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
        last = {(entry.kind, entry.simulated): entry for entry in map(_entry, index.read(folder)["reports"])}
    except ArtifactError as error:
        return [], f"{error.what}: {error.fix}"
    except (KeyError, TypeError, ValueError, OSError) as error:
        return [], f"{folder / index.RESULTS_FILE} is damaged: {error}"
    found = sorted(last.values(), key=lambda entry: entry.time, reverse=True)
    return [asdict(_read(folder, entry)) for entry in found], ""


def _entry(row: Mapping[str, Any]) -> Entry:
    named = index.NAMED.fullmatch(row["file"])
    if named is None:
        raise ValueError(f"{row['file']} is no report")
    time, kind = named.groups()
    datetime.strptime(time, TIME)
    return Entry(row["file"], row["sha256"], kind, str(Status(row["status"])), row["simulated"], time)


def _read(folder: Path, entry: Entry) -> Entry:
    """Look into a report; say so where it is not the one that was entered."""
    try:
        raw = (folder / entry.file).read_bytes()
    except OSError as error:
        return replace(entry, trouble=error.strerror or "cannot be read")
    if hashlib.sha256(raw).hexdigest() != entry.sha256:
        return replace(entry, trouble="was changed")
    try:
        document = json.loads(raw)
        rows = document.get("variants", document.get("rows", []))
        devices = document.get("devices") or dict.fromkeys(row["device"] for row in rows)
        return replace(
            entry,
            devices=tuple(devices) or (document["device"],),
            fastest=tuple(_fastest(rows)),
            ranked=bool(document.get("ranking", {}).get("rows")),
            winner=document.get("winner"),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
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
