"""Staging: an artifact is built beside its place and moved into it whole, or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vconv.convert.room import disk_full
from vconv.errors import ArtifactError
from vconv.types import MANIFEST_FILE

_REPLACED = "replaced"


@dataclass(frozen=True)
class Stage:
    """Where an export works.

    Args:
        artifact: what is moved into place at the end.
        scratch: what is thrown away.
    """

    artifact: Path
    scratch: Path


def _partial_prefix(target: Path) -> str:
    return f".{target.name}.partial-"


def _sweep(target: Path) -> None:
    """Remove what killed exports left beside a target. A living export holds a lock on its folder.

    One that was killed between its last two renames had put the old artifact aside: it goes back.
    """
    for left in target.parent.glob(_partial_prefix(target) + "*"):
        with contextlib.suppress(OSError):
            handle = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if (left / _REPLACED).exists() and not target.exists():
                    (left / _REPLACED).rename(target)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(handle)


def _refuse_occupied(target: Path, force: bool) -> None:
    """Refuse a target that holds anything, or, with ``force``, anything but an artifact."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    is_artifact = (target / MANIFEST_FILE).is_file()
    if force and is_artifact:
        return
    kind = "an artifact" if is_artifact else "a folder that is not empty" if target.is_dir() else "a file"
    raise ArtifactError(
        f"{target} is in the way",
        got=kind,
        expected="nothing there",
        fix="replace it with --force, or choose another --out" if is_artifact else "choose another --out",
    )


@contextlib.contextmanager
def staging(target: Path, force: bool) -> Iterator[Stage]:
    """Give an export a place to work, and move its result to the target when it succeeds.

    On any failure, an interruption included, the target is as it was and the stage is gone. After a kill
    that nothing can catch, the stage is a hidden folder that no command takes for an artifact, and the
    next export to the same target removes it.

    Args:
        target: the artifact's folder; it must not exist, or be empty, unless ``force``.
        force: whether to replace an artifact that is there.

    Yields:
        The stage, its folders made.

    Raises:
        ArtifactError: the target is occupied, or its parent cannot be written.
    """
    if target.parent.is_dir():
        _sweep(target)
    _refuse_occupied(target, force)
    missing = [parent for parent in target.parents if not parent.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        root = Path(tempfile.mkdtemp(prefix=_partial_prefix(target), dir=target.parent))
    except OSError as error:
        raise ArtifactError(
            f"cannot write to {target.parent}",
            got=error.strerror or "an error",
            expected="a folder that can be written",
            fix="choose another --out",
        ) from error
    lock = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stage = Stage(root / target.name, root / "scratch")
        stage.artifact.mkdir()
        stage.scratch.mkdir()
        yield stage
        _move_into_place(stage.artifact, target, root / _REPLACED, force)
    except OSError as error:
        full = disk_full(error)
        if full is None:
            raise
        raise full from error
    finally:
        os.close(lock)
        shutil.rmtree(root, ignore_errors=True)
        with contextlib.suppress(OSError):
            for parent in missing:
                parent.rmdir()


def _move_into_place(artifact: Path, target: Path, replaced: Path, force: bool) -> None:
    if force and target.exists():
        target.rename(replaced)
    try:
        artifact.rename(target)
    except BaseException as error:
        if replaced.exists() and not target.exists():
            replaced.rename(target)
        if not isinstance(error, OSError):
            raise
        _refuse_occupied(target, force)
        raise
