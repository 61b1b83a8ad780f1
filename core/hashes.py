"""Hashes of files. ``hashlib.file_digest`` does the same, but reports no progress."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

_CHUNK_BYTES = 16 * 2**20


def sha256_of(path: Path, read: Callable[[int], None] | None = None) -> str:
    """Return a file's sha256 in hexadecimal, reading it as a stream.

    Args:
        path: the file.
        read: receives the number of bytes of each chunk that was read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            if read is not None:
                read(len(chunk))
    return digest.hexdigest()
