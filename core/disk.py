"""Room on a disk: asked for before anything is written."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

from vconv.errors import ArtifactError, VconvError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says when there is no more room: on the disk, in a quota, or for one file."""
MARGIN_BYTES = 64 * 2**20
"""Beside the weights: graphs, recorded outputs, and whatever else is small."""


PARTIAL, FILLING = ".partial-", ".filling-"
"""In the names of the folders that an export and a fill work in."""
SCRATCH = "vconv-scratch-"
"""How the folders begin that a validation makes in the temporary folder."""


def require_space(folder: Path, nbytes: int) -> None:
    """Make sure that a folder's disk has room for some more bytes, and a margin.

    Raises:
        ArtifactError: it has not.
    """
    free, needed = shutil.disk_usage(folder).free, nbytes + MARGIN_BYTES
    if free < needed:
        shown, fix = _place(folder)
        raise ArtifactError(
            "there is not enough room on the disk",
            got=f"{free / 1e9:.2f} GB free in {shown}",
            expected=f"{needed / 1e9:.2f} GB",
            fix=fix,
        )


def disk_full(error: OSError, folder: Path | None = None) -> ArtifactError | None:
    """Return the sentence for an error that means a full disk; None for any other.

    Args:
        error: the error.
        folder: what was written to; the temporary folder by default.
    """
    if error.errno not in FULL:
        return None
    shown, fix = _place(folder or Path(tempfile.gettempdir()))
    return ArtifactError(
        "the disk is full",
        got=error.strerror or "an error",
        expected=f"room in {shown}",
        fix=f"{fix}; nothing was kept",
    )


def refusal(error: OSError) -> VconvError | None:
    """Return the sentence for what the system refused to do with a file; None for any other error.

    An error without a number or a name is no answer of the file system to the user's own path.
    """
    named = isinstance(error.filename, str | bytes)
    full = disk_full(error, Path(os.fsdecode(error.filename)).parent if named else None)
    if full is not None or error.errno is None or not named:
        return full
    return VconvError(
        f"cannot use {os.fsdecode(error.filename)}",
        got=error.strerror or f"error {error.errno}",
        expected="a file or a folder that can be used",
        fix="check the path, its permissions and its disk",
    )


def _place(folder: Path) -> tuple[Path, str]:
    """Return the folder as its user knows it, and how to come by more room."""
    temporary = Path(tempfile.gettempdir())
    for place in (folder, *folder.parents):
        if place == temporary and folder != place:
            break
        if place == temporary or (place.parent == temporary and place.name.startswith(SCRATCH)):
            return temporary, "free some, or let TMPDIR name a folder on another disk"
        if place.name.startswith(FILLING):
            return place.parent, "free some, or move the artifact to another disk"
        if place.name.startswith(".") and PARTIAL in place.name:
            return place.parent, "free some, or choose another --out"
    return folder, "free some, or choose another --out"
