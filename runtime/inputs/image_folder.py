"""A folder with any number of images: lists its images, and opens one image at a time."""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from vconv.errors import InputError
from vconv.regular_files import open_regular
from vconv.runtime.inputs.images import SUFFIXES, say_left_out
from vconv.runtime.inputs.pictures import QUIET_PILLOW, UnreadableError, open_picture
from vconv.types import Say, silent

THUMBNAIL_SIDE = 160
"""The greatest length of a thumbnail's longer side, in pixels."""
_QUALITY = 80


@dataclass(frozen=True)
class ImageFolder:
    """The contents of a folder and its sub-folders.

    Args:
        path: the folder.
        names: the names of the images, relative to the folder and with slashes, sorted.
        closed: name of a sub-folder or other entry that was not read -> the reason.
        others: the names of the files that are not images, judged by their suffixes, likewise.
    """

    path: Path
    names: tuple[str, ...]
    closed: dict[str, str]
    others: tuple[str, ...]

    def digest(self, index: int) -> str:
        """Return the sha256 of an image's bytes; empty if they cannot be read."""
        try:
            with open_regular(self.path / self.names[index]) as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return ""

    def read(self, index: int) -> tuple[Image.Image | str, str]:
        """Return one image as :meth:`open` does, or the reason why it cannot be used; and its digest."""
        digest = self.digest(index)
        try:
            return self.open(index), digest
        except UnreadableError as error:
            return str(error), digest

    def open(self, index: int) -> Image.Image:
        """Open one image, upright and in its own mode.

        Raises:
            UnreadableError: the image cannot be used.
        """
        return open_picture(self.path / self.names[index])


@dataclass
class _Walk:
    """A walk through a folder, with the entries found so far."""

    root: Path
    names: list[str] = field(default_factory=list)
    closed: dict[str, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    seen: dict[tuple[int, int], str] = field(default_factory=dict)

    def enter(self, relative: str) -> None:
        """Walk through a folder and all that it holds, one level below another without end."""
        left = [self._entries(relative)]
        while left:
            name = next(left[-1], None)
            if name is None:
                left.pop()
            else:
                left.append(self._entries(name))

    def _entries(self, relative: str) -> Iterator[str]:
        """Add a folder's files, and yield its sub-folders, each to be walked through before the next.

        A folder that was visited under another name is not read: links may form cycles.
        """
        here = self.root / relative
        try:
            status = here.stat()
            known = self.seen.setdefault((status.st_dev, status.st_ino), relative)
            if known != relative:
                self.closed[relative] = f"a link to {shown(known) or 'the folder itself'}"
                return
            entries = list(os.scandir(here))
        except OSError as error:
            self.closed[relative] = error.strerror or "it cannot be read"
            return
        for entry in entries:
            name = f"{relative}/{entry.name}" if relative else entry.name
            try:
                folder, file = entry.is_dir(), entry.is_file() or entry.is_symlink()
            except OSError as error:
                self.closed[name] = error.strerror or "it cannot be read"
                continue
            if folder:
                yield name
            elif Path(name).suffix.lower() not in SUFFIXES:
                self.others.append(name)
            elif file:
                self.names.append(name)
            else:
                self.closed[name] = "neither a file nor a folder"


def find_images(folder: str | Path, say: Say = silent) -> ImageFolder:
    """Find the images of a folder and its sub-folders, by their names.

    Args:
        folder: the folder.
        say: receives a line about the files that are left out.

    Raises:
        InputError: the path is not a folder, or the folder holds no image that can be read.
    """
    path = Path(folder)
    if not path.is_dir():
        raise InputError(
            f"no data set at {folder}",
            got="a file" if path.exists() else "no such folder",
            expected="a folder of images",
            fix="name a folder; for a few photographs there is --images",
        )
    walk = _Walk(path)
    walk.enter("")
    others = tuple(sorted(walk.others))
    say_left_out(folder, others, say)
    found = ImageFolder(path, tuple(sorted(walk.names)), dict(sorted(walk.closed.items())), others)
    first = ""
    for index, name in enumerate(found.names):
        try:
            found.open(index)
        except UnreadableError as error:
            first = first or f"{shown(name)}: {error}"
        else:
            return found
    closed = [f"{shown(name) or 'it'}: {reason}" for name, reason in found.closed.items()]
    raise InputError(
        f"no image in {folder} can be read",
        got=first or (closed or ["no image"])[0],
        expected=f"at least one file whose name ends in {', '.join(SUFFIXES)}",
        fix="name a folder that holds some",
    )


def shown(name: str) -> str:
    """Return a file's name in printable characters: each unprintable character becomes an escape sequence."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode()
        for letter in name
    )


def thumbnail(image: Image.Image) -> str:
    """Return a small JPEG of an image as a ``data:`` URL, which an HTML page can show directly."""
    with QUIET_PILLOW:
        small = image.convert("RGB")
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    target = io.BytesIO()
    small.save(target, format="JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(target.getvalue()).decode()}"
