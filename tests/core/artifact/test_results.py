"""Files of an artifact are replaced in one step, and only files are."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vconv.artifact import results
from vconv.errors import ArtifactError


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


SPECIAL: dict[str, Callable[[Path], object]] = {
    "a named pipe": os.mkfifo,
    "a socket": a_socket,
    "a folder": Path.mkdir,
}


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_file_is_not_replaced(kind: str, tmp_path: Path, refused: Callable[..., Any]) -> None:
    path = tmp_path / "special"
    SPECIAL[kind](path)
    before = path.lstat()
    with refused(ArtifactError, f"cannot replace {path}", f"got {kind} "):
        results.replace(path, b"new")
    assert path.lstat() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_replaced_and_not_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"old")
    for target in ("blob", "nothing"):
        (tmp_path / target[0]).symlink_to(target)
        results.replace(tmp_path / target[0], b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "blob": b"old",
        "b": b"new",
        "n": b"new",
    }
    assert not any(path.is_symlink() for path in tmp_path.iterdir())
