"""Disk space, checked before any file is written, and errors of the file system as one sentence."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import tempfile
from pathlib import Path

from vconv.errors import ArtifactError, VconvError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers for no more space: on the disk, within a quota, or within one file."""
MARGIN_BYTES = 64 * 2**20
"""Space for graphs, recorded outputs and other small files beside the weights."""

PARTIAL, FILLING = ".partial-", ".filling-"
"""Parts of the names of the working folders of an export and a fill."""
SCRATCH = "vconv-scratch-"
"""The start of the names of temporary folders."""


def require_space(folder: Path, nbytes: int) -> None:
    """Check that a folder's disk has space for a number of bytes and a margin.

    Raises:
        ArtifactError: the disk has too little space.
    """
    free, needed = shutil.disk_usage(folder).free, nbytes + MARGIN_BYTES
    if free < needed:
        shown, fix = _place(folder)
        raise ArtifactError(
            "there is not enough space on the disk",
            got=f"{free / 1e9:.2f} GB free in {shown}",
            expected=f"{needed / 1e9:.2f} GB",
            fix=fix,
        )


def disk_full(error: OSError, folder: Path | None = None) -> ArtifactError | None:
    """Return the error to show for a full disk; None if the error means something else.

    Args:
        error: the error.
        folder: the folder that was being written to; the temporary folder by default.
    """
    if error.errno not in FULL:
        return None
    shown, fix = _place(folder or Path(tempfile.gettempdir()))
    return ArtifactError(
        "the disk is full",
        got=error.strerror or "an error",
        expected=f"free space in {shown}",
        fix=f"{fix}; nothing was kept",
    )


def refusal(error: OSError) -> VconvError | None:
    """Return the error to show if the system refused to use a file; None for any other error.

    An error without a number or a file name does not concern a path that the user gave.
    """
    named = isinstance(error.filename, str | bytes)
    full = disk_full(error, Path(os.fsdecode(error.filename)).parent if named else None)
    if full is not None or error.errno is None or not named:
        return full
    return VconvError(
        f"cannot use {os.fsdecode(error.filename)}",
        got=error.strerror or f"error {error.errno}",
        expected="a file or folder that can be read and written",
        fix="check the path, its permissions and its disk",
    )


def require_utf8(path: Path, what: str) -> None:
    """Refuse a path with bytes that are not UTF-8: ONNX, ONNX Runtime and OpenVINO open no such path.

    Args:
        path: the path, as it is handed to the libraries.
        what: what it is the path of.

    Raises:
        ArtifactError: its name comes from a system with another encoding.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise ArtifactError(
            f"the path of {what} is not in UTF-8, and libraries for graphs cannot open it",
            got=ascii(str(path)),
            expected="a path in UTF-8",
            fix="rename that file or folder, or use a link to it from elsewhere",
        ) from error


def own_folders() -> list[Path]:
    """Return folders of this machine and its user, whose paths no artifact may contain.

    There may be fewer than usual: a container's user may have no home and no entry in the list of users, and
    the current folder may have been removed.
    """
    found = [tempfile.gettempdir(), sys.prefix]
    with contextlib.suppress(RuntimeError):
        found.append(str(Path.home()))
    with contextlib.suppress(FileNotFoundError):
        found.append(str(Path.cwd()))
    return [Path(folder) for folder in found if folder != os.sep]


def _place(folder: Path) -> tuple[Path, str]:
    """Return the folder that the user knows, and advice on how to get more space there."""
    temporary = Path(tempfile.gettempdir())
    for place in (folder, *folder.parents):
        if place == temporary and folder != place:
            break
        if place == temporary or (place.parent == temporary and place.name.startswith(SCRATCH)):
            return temporary, "free some space, or set TMPDIR to a folder on another disk"
        if place.name.startswith(FILLING):
            return place.parent, "free some space, or move the artifact to another disk"
        if place.name.startswith(".") and PARTIAL in place.name:
            return place.parent, "free some space, or choose another --out"
    return folder, "free some space, or choose another --out"
