"""Hashes of files. ``hashlib.file_digest`` does the same, but reports no progress."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

_CHUNK_BYTES = 16 * 2**20


def sha256_of(path: Path, read: Callable[[int], None] | None = None) -> str:
    """Return a file's sha256 in hexadecimal, reading it as a stream.

    Args:
        path: the file.
        read: receives the number of bytes of each chunk that was read.
    """
    return sha256_of_chunks(chunks_of(path), read)


def chunks_of(path: Path) -> Iterator[bytes]:
    """Yield the content of a file."""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def sha256_of_chunks(chunks: Iterable[bytes], read: Callable[[int], None] | None = None) -> str:
    """Return the sha256 of a stream, as :func:`sha256_of` does of a file."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        if read is not None:
            read(len(chunk))
    return digest.hexdigest()
