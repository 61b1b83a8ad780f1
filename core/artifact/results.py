"""The index of an artifact's reports, ``results.json``: the saved reports with their hashes, and the card."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from vconv import documents
from vconv.artifact.record import Record
from vconv.errors import ArtifactError
from vconv.regular_files import A_FILE, kind_of
from vconv.types import Status

RESULTS_FILE = "results.json"
REPORTS_FOLDER = "reports"
CARD_FILE = "README.md"
NAMED = re.compile(rf"{REPORTS_FOLDER}/(\d{{8}}T\d{{6}})-([a-z]+)(?:-\d+)?\.json", re.ASCII)
"""The name of a report: its time, its command, and a number if several were made in one second."""
TIME = "%Y%m%dT%H%M%S"


def _report_name(name: str) -> str:
    named = NAMED.fullmatch(name)
    if named is None:
        raise ValueError("not the name of a report")
    datetime.strptime(named.group(1), TIME)
    return name


class WinnerEntry(Record):
    """The variant of the artifact that won a ranking on a device; ``load`` is the Python that opens it."""

    variant: str
    engine: str
    device: str
    load: str


class IndexEntry(Record):
    """One report in the index.

    The earliest entries of 0.1.0 have neither ``artifact`` nor ``manifest``. ``winners`` is
    missing without a ranking, and in entries of versions that did not record it.
    """

    file: Annotated[str, AfterValidator(_report_name)]
    sha256: str
    status: Status
    simulated: bool
    artifact: str = ""
    manifest: str = ""
    winners: tuple[WinnerEntry, ...] = ()

    @property
    def time(self) -> str:
        """The time of the report, in UTC: ``20261121T184025``."""
        return self._named[0]

    @property
    def kind(self) -> str:
        """The command that made the report: ``validate``, ``compare`` or ``bisect``."""
        return self._named[1]

    @property
    def _named(self) -> tuple[str, str]:
        named = NAMED.fullmatch(self.file)
        assert named is not None
        return named.group(1), named.group(2)


class CardEntry(Record):
    """The card as vconv wrote it last; ``next`` is the hash of a card that is being written."""

    language: str | None = None
    sha256: str | None = None
    next: str | None = None


def read(folder: Path) -> dict[str, Any]:
    """Return an artifact's index: ``reports``, the oldest first, and ``card``, empty if vconv wrote no card.

    The entries of reports are as they stand in the file; :func:`entry` reads one.

    Raises:
        ArtifactError: the index is damaged, or cannot be read.
    """
    index = folder / RESULTS_FILE
    if not os.path.lexists(index):
        return {"reports": [], "card": {}}
    found = documents.parse(index, documents.read(index, documents.INDEX), documents.INDEX)
    reports = found.get("reports") if isinstance(found, dict) else None
    if not isinstance(reports, list):
        raise documents.refusal(index, documents.INDEX, "no list of reports")
    card = documents.typed(index, CardEntry, found.get("card") or {}, documents.INDEX)
    return {"reports": reports, "card": card.model_dump(exclude_unset=True)}


def entry(content: object) -> IndexEntry:
    """Read one entry of the index.

    Raises:
        ValueError: it is damaged.
    """
    return documents.strictly(IndexEntry, content)


def write(folder: Path, found: Mapping[str, Any]) -> None:
    """Replace an artifact's index. The caller must hold :func:`locked` while it changes the index.

    Raises:
        ArtifactError: it has more reports than can be read back.
    """
    index, raw = folder / RESULTS_FILE, (json.dumps(found, indent=2) + "\n").encode()
    documents.require_readable(index, raw, documents.INDEX, documents.INDEX.fix)
    replace(index, raw)


def reports_folder(folder: Path) -> Path:
    """Return the folder of an artifact's reports, which is made if necessary.

    Raises:
        ArtifactError: it is a link: nothing is written outside of an artifact.
        OSError: it cannot be made.
    """
    reports = folder / REPORTS_FOLDER
    if reports.is_symlink():
        raise ArtifactError(
            f"{reports} is a link",
            got=f"a link to {os.fspath(reports.readlink())}",
            expected="a folder of the artifact, or nothing",
            fix="remove the link",
        )
    reports.mkdir(exist_ok=True)
    return reports


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
