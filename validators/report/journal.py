"""A journal: the results of a long job, kept on disk so that a kill loses at most the last step.

The rows of a step are written first. When they are on the disk, one line is added that confirms the step. The
line contains a hash of the line and of the rows. So a step that a kill or a crash left incomplete is found
when the journal is opened, and is done again. A database (sqlite3) could keep the rows too, but could not
return them as one memory-mapped array.
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

from vconv import documents
from vconv.artifact import results
from vconv.disk import disk_full
from vconv.errors import ArtifactError
from vconv.regular_files import open_regular
from vconv.types import Array

_LINES = "journal"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
Note = Mapping[str, Any]


@dataclass(frozen=True)
class JournalTable:
    """One table of the journal: the type and shape of each row.

    Args:
        dtype: the type of the numbers, in numpy's notation.
        shape: the shape of one row.
    """

    dtype: str
    shape: tuple[int, ...] = ()

    @property
    def nbytes(self) -> int:
        """Size of one row, in bytes."""
        return np.dtype(self.dtype).itemsize * int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class _Step:
    """A line of the journal: the number of rows of its step, their hash, and the note of the step."""

    rows: int
    sha256: str
    note: Note

    def line(self) -> bytes:
        text = json.dumps({"rows": self.rows, "sha256": self.sha256, "note": self.note}).encode()
        return hashlib.sha256(text).hexdigest().encode() + b" " + text + b"\n"

    @classmethod
    def read(cls, line: bytes, form: type[Any]) -> _Step | None:
        """Read a line; return None if it is incomplete, or not as :meth:`line` writes a note of the form."""
        digest, _, text = line.removesuffix(b"\n").partition(b" ")
        if not line.endswith(b"\n") or hashlib.sha256(text).hexdigest().encode() != digest:
            return None
        try:
            step = documents.strictly(cls, documents.parse(Path(_LINES), text, documents.NOTE))
            documents.strictly(form, step.note)
        except (ArtifactError, ValueError):
            return None
        return step if step.rows >= 0 and step.line() == line else None


class Journal:
    """An open journal: see :func:`open_journal`.

    Args:
        folder: the folder of the journal.
        tables: its tables, by name.
        form: the type of a note.
    """

    def __init__(self, folder: Path, tables: Mapping[str, JournalTable], form: type[Any] = dict) -> None:
        self.folder, self.tables, self._form = folder, tables, form
        self.steps = self.rows = 0
        self._nbytes = 0
        for path in self._files():
            _create(path)
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
        """Yield the steps from the first on, up to the first whose line or rows are incomplete."""
        with contextlib.ExitStack() as closing:
            files = {name: closing.enter_context(open_regular(self._file(name))) for name in self.tables}
            lines = closing.enter_context(open_regular(self.folder / _LINES))
            while line := lines.readline(documents.NOTE.nbytes):
                step = _Step.read(line, self._form)
                if step is None:
                    return
                digest = hashlib.sha256()
                for name, file in files.items():
                    nbytes = step.rows * self.tables[name].nbytes
                    if file.tell() + nbytes > os.fstat(file.fileno()).st_size:
                        return
                    digest.update(file.read(nbytes))
                if digest.hexdigest() != step.sha256:
                    return
                yield step

    def _cut(self) -> None:
        """Cut off bytes that belong to no complete step."""
        os.truncate(self.folder / _LINES, self._nbytes)
        for name, table in self.tables.items():
            os.truncate(self._file(name), self.rows * table.nbytes)

    def notes(self) -> Iterator[Note]:
        """Yield the note of each step."""
        with (self.folder / _LINES).open("rb") as lines:
            for line in lines:
                step = _Step.read(line, self._form)
                assert step is not None, "every line was looked at when the journal was opened"
                yield step.note

    def keep(self, steps: int) -> None:
        """Keep only this number of steps, the first ones."""
        if steps >= self.steps:
            return
        self.rows = self.steps = self._nbytes = 0
        for _, step in zip(range(steps), self._sound(), strict=False):
            self._count(step)
        self._cut()

    def append(self, rows: Mapping[str, Array], note: Note) -> None:
        """Add a step; when this function returns, the step is on the disk.

        Args:
            rows: the same number of rows, (R, ...), for each table.
            note: further data to keep with the step, of types that JSON can hold.

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
        """Return all rows of a table, (N, ...), as a read-only memory-mapped file."""
        table = self.tables[name]
        return _mapped(self._file(name), table.dtype, (self.rows, *table.shape), "r")

    def scratch(self, name: str, dtype: str, shape: tuple[int, ...]) -> Array:
        """Return a memory-mapped file to fill; it belongs to no step, and is removed with the journal."""
        return _mapped(self.folder / f"{name}.scratch", dtype, shape, "w+")


def _mapped(path: Path, dtype: str, shape: tuple[int, ...], mode: Any) -> Array:
    if 0 in shape:
        return np.empty(shape, dtype)  # an empty file cannot be mapped
    return np.memmap(path, dtype, mode, shape=shape)


def _create(path: Path) -> None:
    """Create a file of the journal, unless it is there; nothing is written through a link.

    Raises:
        ArtifactError: something else is in its place.
    """
    with contextlib.suppress(FileExistsError):
        path.touch(exist_ok=False)
    if path.is_symlink() or not path.is_file():
        raise ArtifactError(
            f"{path} is in the way",
            got="a link" if path.is_symlink() else "what is no file",
            expected="a file of an earlier run, or nothing",
            fix="remove it",
        )


def _add(path: Path, content: bytes) -> None:
    """Append to a file, and wait until the content is on the disk."""
    with path.open("ab") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def open_journal(
    folder: Path, tables: Mapping[str, JournalTable], form: type[Any] = dict
) -> Iterator[Journal]:
    """Open a journal, or create one. Only one process can open it at a time. It stays on disk when closed.

    Args:
        folder: the folder of the journal; the parent folder must exist.
        tables: its tables, by name.
        form: the type of a note; a step with a note of another type is done again.

    Raises:
        ArtifactError: another process has it open, or something else is in the place of its files.
    """
    handle = _locked(folder)
    try:
        yield Journal(folder, tables, form)
    finally:
        os.close(handle)


def _locked(folder: Path) -> int:
    """Create a folder if necessary, and lock it; create it again if it was removed before the lock."""
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
    """Lock an artifact, so that only one process at a time runs it on a folder of images.

    Raises:
        ArtifactError: another process has the lock.
    """
    handle = os.open(results.reports_folder(folder), os.O_RDONLY)
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
    """Remove a journal that is no longer needed, unless another process has it open."""
    with contextlib.suppress(ArtifactError):
        handle = _locked(folder)
        try:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(handle)
