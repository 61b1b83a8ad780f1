"""A text in the place of a weights file: a Git LFS pointer, or a web page about the file."""

from __future__ import annotations

from pathlib import Path

from vconv.errors import WeightsError

BEGINNING_BYTES = 40
_TELLING = 8
"""Weights files of every format that vconv reads have a byte that is not text among the first eight."""


def refuse_text(path: Path, beginning: bytes, kind: str, expected: str) -> None:
    """Refuse a file that begins as a text.

    Args:
        path: the file, named in the error.
        beginning: its first :data:`BEGINNING_BYTES`.
        kind: what the file should be, such as ``safetensors file``.
        expected: what such a file contains.

    Raises:
        WeightsError: the file begins as a text.
    """
    start = beginning[:_TELLING]
    if len(start) < _TELLING or not start.isascii() or not start.decode("ascii").isprintable():
        return
    if b"\0" in beginning:  # a tar begins with a file's name and zeros
        return
    pointer = start == b"version "
    raise WeightsError(
        f"{path.name} is not a valid {kind}",
        got="a Git LFS pointer in place of the file"
        if pointer
        else f"a text that begins with {beginning!r:.40}",
        expected=expected,
        fix="run `git lfs pull` in its folder, or download it with `hf download`"
        if pointer
        else "download the file itself; this may be a web page about it",
    )
