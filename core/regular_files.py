"""Files that others named: only regular ones are opened, because pipes and devices block, or never end."""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path

A_FILE = "a file"
_KINDS = {
    stat.S_IFREG: A_FILE,
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def kind_of(path: Path) -> str:
    """Say what is at a path: ``a file``, ``a folder``, or something else; empty if there is nothing.

    A link stands for what it leads to.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "a link to nothing" if path.is_symlink() else ""
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return "a link to itself"
    return _kind(mode)


def open_regular(path: str | Path) -> io.BufferedReader:
    """Open a regular file, or a link to one, for reading.

    Raises:
        OSError: it cannot be opened, or is not a regular file; then ``strerror`` says what it is.
        ValueError: the path holds a NUL.
    """
    _require_regular(Path(path).stat().st_mode, path)  # opening a device may already change its state
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        _require_regular(os.fstat(descriptor).st_mode, path)  # it may have been replaced in the meantime
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _require_regular(mode: int, path: str | Path) -> None:
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"{_kind(mode)}, not a regular file", str(path))


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "neither a file nor a folder")
