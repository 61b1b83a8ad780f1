"""A journal: what a long job has done, kept on disk so that a kill loses no more than the last step.

The rows of a step are written first, and then, once they are on the disk, one line that says so. A line has a
hash of itself and of the rows: what a kill or a crash tore is found when the journal is opened, and the step
is done again. A database (sqlite3) would keep the rows too, but could not give them back as one memory-mapped
array.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vconv.artifact.results import REPORTS_FOLDER
from vconv.disk import disk_full
from vconv.errors import ArtifactError
from vconv.types import Array

_LINES = "journal"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
Note = Mapping[str, Any]


@dataclass(frozen=True)
class JournalTable:
    """What is kept of each row under one name.

    Args:
        dtype: the numbers' type, as numpy has it.
        shape: of one row.
    """

    dtype: str
    shape: tuple[int, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of one row."""
        return np.dtype(self.dtype).itemsize * int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class _Step:
    """A line of the journal: how many rows its step has, their hash, and whatever else was noted."""

    rows: int
    sha256: str
    note: Note

    def line(self) -> bytes:
        text = json.dumps({"rows": self.rows, "sha256": self.sha256, "note": self.note}).encode()
        return hashlib.sha256(text).hexdigest().encode() + b" " + text + b"\n"

    @classmethod
    def read(cls, line: bytes) -> _Step | None:
        """Read a line; None if it is torn."""
        digest, _, text = line.removesuffix(b"\n").partition(b" ")
        if not line.endswith(b"\n") or hashlib.sha256(text).hexdigest().encode() != digest:
            return None
        return cls(**json.loads(text))


class Journal:
    """A journal that is open: see :func:`open_journal`.

    Args:
        folder: where it lies.
        tables: what is kept of each row.
    """

    def __init__(self, folder: Path, tables: Mapping[str, JournalTable]) -> None:
        self.folder, self.tables = folder, tables
        self.steps = self.rows = 0
        self._nbytes = 0
        for path in self._files():
            path.touch()
        for step in self._sound():
            self._count(step)
        self._cut()

    def _files(self) -> list[Path]:
        return [self.folder / _LINES, *map(self._file, self.tables)]

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.rows"

    def _count(self, step: _Step) -> None:
        self.steps, self.rows = self.steps + 1, self.rows + step.rows
        self._nbytes += len(step.line())

    def _sound(self) -> Iterator[_Step]:
        """Yield the steps from the first, as long as both line and rows are whole."""
        with contextlib.ExitStack() as closing:
            files = {name: closing.enter_context(self._file(name).open("rb")) for name in self.tables}
            for line in closing.enter_context((self.folder / _LINES).open("rb")):
                step = _Step.read(line)
                if step is None:
                    return
                digest = hashlib.sha256()
                for name, file in files.items():
                    digest.update(file.read(step.rows * self.tables[name].nbytes))
                if digest.hexdigest() != step.sha256:
                    return
                yield step

    def _cut(self) -> None:
        """Cut off what no step stands for."""
        os.truncate(self.folder / _LINES, self._nbytes)
        for name, table in self.tables.items():
            os.truncate(self._file(name), self.rows * table.nbytes)

    def notes(self) -> Iterator[Note]:
        """Yield what was noted of each step."""
        with (self.folder / _LINES).open("rb") as lines:
            for line in lines:
                step = _Step.read(line)
                assert step is not None, "every line was looked at when the journal was opened"
                yield step.note

    def keep(self, steps: int) -> None:
        """Forget all but the first steps."""
        if steps >= self.steps:
            return
        self.rows = self.steps = self._nbytes = 0
        for _, step in zip(range(steps), self._sound(), strict=False):
            self._count(step)
        self._cut()

    def append(self, rows: Mapping[str, Array], note: Note) -> None:
        """Add a step; when this returns, it is on the disk.

        Args:
            rows: the same number of rows, (R, ...), for each table.
            note: what else to keep: anything that JSON holds.

        Raises:
            ArtifactError: the disk is full.
        """
        digest = hashlib.sha256()
        counts = set()
        try:
            for name, table in self.tables.items():
                content = np.ascontiguousarray(rows[name], table.dtype)
                if content.shape[1:] != table.shape:
                    raise ValueError(f"rows of {name} are {content.shape[1:]}, not {table.shape}")
                counts.add(len(content))
                digest.update(content.tobytes())
                _add(self._file(name), content.tobytes())
            (count,) = counts
            step = _Step(count, digest.hexdigest(), note)
            _add(self.folder / _LINES, step.line())
        except OSError as error:
            raise disk_full(error, self.folder.parent) or error from error
        self._count(step)

    def array(self, name: str) -> Array:
        """Return every row under a name, (N, ...), as a memory-mapped file that cannot be written."""
        table = self.tables[name]
        return _mapped(self._file(name), table.dtype, (self.rows, *table.shape), "r")

    def scratch(self, name: str, dtype: str, shape: tuple[int, ...]) -> Array:
        """Return a memory-mapped file to be filled; it is of no step, and lost when the journal is."""
        return _mapped(self.folder / f"{name}.scratch", dtype, shape, "w+")


def _mapped(path: Path, dtype: str, shape: tuple[int, ...], mode: Any) -> Array:
    if 0 in shape:
        return np.empty(shape, dtype)  # an empty file cannot be mapped
    return np.memmap(path, dtype, mode, shape=shape)


def _add(path: Path, content: bytes) -> None:
    """Append to a file, and wait until that is on the disk."""
    with path.open("ab") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def open_journal(folder: Path, tables: Mapping[str, JournalTable]) -> Iterator[Journal]:
    """Open a journal, or begin one. It is one process's as long as it is open, and stays when it is closed.

    Args:
        folder: where it lies; its parent is there.
        tables: what is kept of each row.

    Raises:
        ArtifactError: another process has it open.
    """
    handle = _locked(folder)
    try:
        yield Journal(folder, tables)
    finally:
        os.close(handle)


def _locked(folder: Path) -> int:
    """Make a folder, if there is none, and lock it; make it again if it was removed in between."""
    while True:
        folder.mkdir(exist_ok=True)
        handle = os.open(folder, _FOLDER)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if folder.exists() and os.path.samestat(os.fstat(handle), folder.stat()):
                return handle
        except BlockingIOError as error:
            os.close(handle)
            raise ArtifactError(
                f"{folder} is in use",
                got="another process that works on the same images and variants",
                expected="one at a time",
                fix="wait until it is done",
            ) from error
        os.close(handle)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other runs over a folder of images from an artifact while open, before any work is done.

    Raises:
        ArtifactError: there is one already.
    """
    reports = folder / REPORTS_FOLDER
    reports.mkdir(exist_ok=True)
    handle = os.open(reports, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ArtifactError(
                f"{folder} is in use",
                got="another process that runs it on a folder of images",
                expected="one at a time",
                fix="wait until it is done",
            ) from error
        yield
    finally:
        os.close(handle)


def discard(folder: Path) -> None:
    """Remove a journal that nobody needs any more; one that another process has open is left to it."""
    with contextlib.suppress(ArtifactError):
        handle = _locked(folder)
        try:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(handle)
