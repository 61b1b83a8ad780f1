"""Room on a disk: asked for before anything is written."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from vconv.errors import ArtifactError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says when there is no more room: on the disk, in a quota, or for one file."""
MARGIN_BYTES = 64 * 2**20
"""Beside the weights: graphs, recorded outputs, and whatever else is small."""


def require_room(folder: Path, nbytes: int) -> None:
    """Make sure that a folder's disk has room for some more bytes, and a margin.

    Raises:
        ArtifactError: it has not.
    """
    free, needed = shutil.disk_usage(folder).free, nbytes + MARGIN_BYTES
    if free < needed:
        raise ArtifactError(
            "there is not enough room on the disk",
            got=f"{free / 1e9:.2f} GB free",
            expected=f"{needed / 1e9:.2f} GB",
            fix="free some, or choose another --out",
        )


def disk_full(error: OSError) -> ArtifactError | None:
    """Return the sentence for an error that means a full disk; None for any other."""
    if error.errno not in FULL:
        return None
    return ArtifactError(
        "the disk is full",
        got=error.strerror or "an error",
        expected="room for the artifact",
        fix="free some, or choose another --out; nothing was kept",
    )
