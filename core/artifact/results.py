"""The index of an artifact's reports, ``results.json``: the saved reports with their hashes, and the card."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vconv.disk import A_FILE, kind_of
from vconv.errors import ArtifactError

RESULTS_FILE = "results.json"
REPORTS_FOLDER = "reports"
CARD_FILE = "README.md"
NAMED = re.compile(rf"{REPORTS_FOLDER}/(\d{{8}}T\d{{6}})-([a-z]+)(?:-\d+)?\.json")
"""The name of a report: its time, its command, and a number if several were made in one second."""


@dataclass(frozen=True)
class SavedReport:
    """One saved report.

    Args:
        file: the report's path in the artifact.
        document: the contents of the report.
    """

    file: str
    document: Mapping[str, Any]


def read(folder: Path) -> dict[str, Any]:
    """Return an artifact's index: ``reports``, the oldest first, and ``card``, empty if vconv wrote no card.

    Raises:
        ArtifactError: the index is damaged, or cannot be read.
    """
    index = folder / RESULTS_FILE
    try:
        found = json.loads(index.read_bytes()) if index.is_file() else {"reports": []}
        entries = [dict(entry) for entry in found["reports"]]
        if not all(isinstance(entry[key], str) for entry in entries for key in ("file", "sha256")):
            raise TypeError("an entry that names no report")
        return {"reports": entries, "card": dict(found.get("card") or {})}
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(folder) from error
    except OSError as error:
        raise ArtifactError(
            f"cannot read {index}",
            got=error.strerror or "an error",
            expected="a file that may be read",
            fix="repair its permissions",
        ) from error


def damaged(folder: Path) -> ArtifactError:
    """Return the error for an artifact whose index cannot be read."""
    return ArtifactError(
        f"{folder / RESULTS_FILE} is damaged",
        got="not an index of reports",
        expected='{"reports": [...]}',
        fix="delete it: its reports stay, but count no more; then `vconv card --force`",
    )


def write(folder: Path, found: Mapping[str, Any]) -> None:
    """Replace an artifact's index. The caller must hold :func:`locked` while it changes the index."""
    replace(folder / RESULTS_FILE, (json.dumps(found, indent=2) + "\n").encode())


def reports(folder: Path) -> list[SavedReport]:
    """Read every report that the index names, the oldest first.

    Raises:
        ArtifactError: a report is missing, changed or unreadable, or the index is damaged.
    """
    return [_report(folder, entry) for entry in read(folder)["reports"]]


def _report(folder: Path, entry: Any) -> SavedReport:
    try:
        name, expected = entry["file"], entry["sha256"]
        if not NAMED.fullmatch(name):
            raise ValueError(f"{name!r} is no report's name")
        content = (folder / name).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if digest != expected:
            raise ArtifactError(
                f"{folder / name} was changed",
                got=f"sha256 {digest[:12]}",
                expected=f"sha256 {expected[:12]}",
                fix=f"put the report back, or take it out of {RESULTS_FILE}",
            )
        document = dict(json.loads(content))
        return SavedReport(name, document)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"cannot read a report that {folder / RESULTS_FILE} names",
            got=f"{type(error).__name__}: {error}",
            expected="every report that is named",
            fix=f"put the report back, or take it out of {RESULTS_FILE}",
        ) from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock an artifact's index and card against other processes while this context is open."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def replace(path: Path, content: bytes) -> None:
    """Replace a file in one step: write a temporary file beside it, and rename that file.

    Raises:
        ArtifactError: what is there is no file: a folder, a device, a pipe.
        OSError: it cannot be written; the error names the file.
    """
    there = kind_of(path)
    if there not in (A_FILE, "", "a link to nothing"):
        raise ArtifactError(
            f"cannot replace {path}",
            got=there,
            expected="a file, or nothing there",
            fix="move it away, or choose another place",
        )
    beside = path.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()
