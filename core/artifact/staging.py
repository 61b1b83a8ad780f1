"""Staging: build an artifact in a folder beside its target, then move it to the target in one step.

The locks are ``flock`` on the folders themselves; the kernel releases them when a process is killed. A
package such as filelock locks an additional file, which a killed process would leave behind.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vconv.disk import PARTIAL, SCRATCH, disk_full, require_utf8
from vconv.errors import ArtifactError
from vconv.regular_files import kind_of
from vconv.types import MANIFEST_FILE, Say

_REPLACED = "replaced"
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True)
class Replaceable:
    """The kind of folder that ``--force`` may replace.

    Args:
        mark: the file by which a folder of this kind is known.
        named: the words for such a folder in an error.
    """

    mark: str
    named: str


ARTIFACT = Replaceable(MANIFEST_FILE, "an artifact")
_LONGEST = 200
"""Bytes of a target's name that its stage's name repeats; file systems take 255 for the whole name."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
"""Flags to open a folder for locking. A pipe, a link or a file of the same name is not opened."""


@dataclass(frozen=True)
class StagedExport:
    """The folders in which an export works.

    Args:
        artifact: the folder that is moved to the target at the end.
        scratch: a folder for temporary files, deleted at the end.
    """

    artifact: Path
    scratch: Path


def _partial_prefix(target: Path) -> str:
    name = os.fsencode(target.name)
    shown = target.name if len(name) <= _LONGEST else hashlib.sha256(name).hexdigest()
    return f".{shown}{PARTIAL}"


@contextlib.contextmanager
def workplace(parent: Path, prefix: str) -> Iterator[Path]:
    """Make a working folder and keep it locked, so that :func:`left_behind` does not remove it.

    Args:
        parent: the folder to make it in.
        prefix: the start of its name.

    Yields:
        The folder; it is removed when the context closes.
    """
    root, lock = _locked(parent, prefix)
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)
        os.close(lock)


@contextlib.contextmanager
def scratch_folder(say: Say) -> Iterator[Path]:
    """Make a temporary folder, such as for the original, and remove those that killed commands left."""
    temporary = Path(tempfile.gettempdir())
    for left in left_behind(temporary, SCRATCH):
        say(f"removing {left}, which a killed command left")
    with workplace(temporary, SCRATCH) as place:
        yield place


def _locked(parent: Path, prefix: str) -> tuple[Path, int]:
    """Make a folder and lock it. If another process removed the folder before the lock, make a new folder."""
    while True:
        root = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(root, _FOLDER)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if os.path.samestat(os.fstat(lock), root.stat()):
                    return root, lock
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)


def left_behind(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield, and then remove, each folder that a killed command left. A running command's folder is locked.

    Args:
        parent: the folder that contains them.
        prefix: the start of their names.
    """
    for left in parent.glob(glob.escape(prefix) + "*"):
        with contextlib.suppress(OSError):
            handle = os.open(left, _FOLDER)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield left
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(handle)


def _sweep(target: Path) -> None:
    """Remove the folders that killed exports left beside a target.

    An export that was killed between its last two renames had moved the old artifact away: restore that
    artifact.
    """
    for left in left_behind(target.parent, _partial_prefix(target)):
        if (left / _REPLACED).exists() and not target.exists():
            (left / _REPLACED).rename(target)


def _resolved(target: Path) -> Path:
    """Return the real path of a target, without links and dots."""
    found = Path(os.path.realpath(target))
    if target.is_symlink() and not found.exists():
        raise ArtifactError(
            f"{target} is in the way",
            got="a link to nothing",
            expected="nothing there",
            fix="remove the link, or choose another --out",
        )
    return found


def _refuse_occupied(target: Path, force: bool, replaceable: Replaceable) -> None:
    """Refuse a target that exists and is not an empty folder; with ``force``, accept what is replaceable."""
    if os.path.ismount(target):
        raise ArtifactError(
            f"{target} is in the way",
            got="a place where a disk is mounted, which nothing can replace",
            expected="nothing there",
            fix=f"choose a folder in it: --out {target / 'NAME'}",
        )
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    known = (target / replaceable.mark).is_file()
    if force and known:
        return
    other = "a folder that is not empty" if target.is_dir() else kind_of(target)
    kind = replaceable.named if known else other
    raise ArtifactError(
        f"{target} is in the way",
        got=kind,
        expected="nothing there",
        fix="replace it with --force, or choose another --out" if known else "choose another --out",
    )


@contextlib.contextmanager
def _writable(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise disk_full(error, target.parent) or ArtifactError(
            f"cannot write to {target}",
            got=_obstacle(target, error),
            expected="a folder that can be written",
            fix="choose another --out",
        ) from error


def _obstacle(target: Path, error: OSError) -> str:
    """Say what is wrong with a target that cannot be made: a file in the way, or a folder that takes none."""
    place = next(parent for parent in target.parents if os.path.lexists(parent))
    if not place.is_dir():
        return f"{kind_of(place)} in the way: {place}"
    if error.errno == errno.ENOENT:  # what /proc says of every new name
        return f"{place}, which takes no new folder"
    reason = error.strerror or "an error"
    return f"{reason}: {place}" if error.errno in _NOT_WRITABLE else reason


@contextlib.contextmanager
def staging(target: Path, force: bool, replaceable: Replaceable = ARTIFACT) -> Iterator[StagedExport]:
    """Make the working folders of an export, and move its artifact to the target if the export succeeds.

    After any failure, including an interruption, the target is unchanged and the stage is removed. After a
    kill that cannot be caught, the stage remains as a hidden folder. No command mistakes that folder for an
    artifact, and the next export to the same target removes it.

    Args:
        target: the artifact's folder; it must be absent or empty, unless ``force``. A link to a folder stands
            for that folder.
        force: whether to replace an existing folder.
        replaceable: the kind of folder that ``force`` replaces.

    Yields:
        The stage; its folders exist.

    Raises:
        ArtifactError: the target is occupied, or its parent cannot be written.
    """
    with contextlib.ExitStack() as kept:
        with _writable(target):
            target = _resolved(target)
            require_utf8(target, "the artifact")
            if target.parent.is_dir():
                _sweep(target)
            _refuse_occupied(target, force, replaceable)
            missing = [parent for parent in target.parents if not parent.exists()]
            kept.callback(_remove_empty, missing)
            target.parent.mkdir(parents=True, exist_ok=True)
            root = kept.enter_context(workplace(target.parent, _partial_prefix(target)))
            stage = StagedExport(root / target.name, root / "scratch")
            stage.artifact.mkdir()
            stage.scratch.mkdir()
        try:
            yield stage
        except OSError as error:
            full = disk_full(error, root)
            if full is None:
                raise
            raise full from error
        _move_into_place(stage.artifact, target, root / _REPLACED, force, replaceable)


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _move_into_place(
    artifact: Path, target: Path, replaced: Path, force: bool, replaceable: Replaceable
) -> None:
    try:
        try:
            if force and target.exists():
                target.rename(replaced)
            artifact.rename(target)
        except BaseException:
            if replaced.exists() and not target.exists():
                replaced.rename(target)
            raise
    except OSError as error:
        _refuse_occupied(target, force, replaceable)
        raise disk_full(error, target.parent) or ArtifactError(
            f"cannot put the artifact into {target}",
            got=error.strerror or "an error",
            expected="a place that nobody else changes meanwhile",
            fix="export again, or choose another --out",
        ) from error
