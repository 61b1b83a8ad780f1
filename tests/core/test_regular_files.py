"""Opening files that others named: what is no regular file is not opened, and does not block."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from vconv import regular_files
from vconv.regular_files import kind_of, open_regular


def test_a_file_and_a_link_to_it_are_opened_for_reading(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "b").symlink_to("a")
    for name in ("a", "b"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"content"


def test_what_is_no_regular_file_is_named_and_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # the path of a socket must be short
        server.bind("socket")
    monkeypatch.setattr(os, "open", lambda *arguments: pytest.fail("it was opened"))
    expected = {
        "pipe": "a named pipe",
        "link": "a named pipe",
        "folder": "a folder",
        "socket": "a socket",
        "/dev/null": "a device",
    }
    for name, kind in expected.items():
        with pytest.raises(OSError, match=f"{kind}, not a regular file"):
            open_regular(name)


def test_a_file_that_a_pipe_replaces_while_it_is_opened_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"content")
    opened: list[int] = []
    genuine = os.open

    def replace(name: str | Path, flags: int) -> int:
        assert flags & os.O_NONBLOCK
        path.unlink()
        os.mkfifo(path)
        opened.append(genuine(name, flags))
        return opened[-1]

    monkeypatch.setattr(regular_files.os, "open", replace)
    with pytest.raises(OSError, match="a named pipe, not a regular file"):
        open_regular(path)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[0])


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "nowhere")


def test_a_link_without_an_end_is_named(tmp_path: Path) -> None:
    (tmp_path / "nothing").symlink_to("nowhere")
    (tmp_path / "itself").symlink_to("itself")
    assert kind_of(tmp_path / "nothing") == "a link to nothing"
    assert kind_of(tmp_path / "itself") == "a link to itself"
    assert kind_of(tmp_path / "absent") == ""
