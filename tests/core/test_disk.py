from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace

import pytest

from vconv.disk import FULL, MARGIN_BYTES, SCRATCH, disk_full, require_space
from vconv.errors import ArtifactError

Refused = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """The function that makes a disk have so many bytes free."""

    def make(nbytes: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=nbytes))

    return make


def test_space_and_a_margin_are_enough(free: Callable[[int], None], tmp_path: Path) -> None:
    free(5_000_000_000 + MARGIN_BYTES)
    require_space(tmp_path, 5_000_000_000)


def test_one_byte_less_is_refused(free: Callable[[int], None], tmp_path: Path, refused: Refused) -> None:
    free(5_000_000_000 + MARGIN_BYTES - 1)
    with refused(
        ArtifactError, "not enough space on the disk", "got 5.07 GB free", "expected 5.07 GB", "--out"
    ):
        require_space(tmp_path, 5_000_000_000)


def test_zero_bytes_fit_on_any_disk(tmp_path: Path) -> None:
    require_space(tmp_path, -MARGIN_BYTES)


@pytest.mark.parametrize("number", FULL)
def test_a_full_disk_is_one_sentence(number: int) -> None:
    found = disk_full(OSError(number, os.strerror(number)))
    assert isinstance(found, ArtifactError)
    assert (found.what, found.got) == ("the disk is full", os.strerror(number))


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOENT, errno.EIO])
def test_another_error_is_not_taken_for_it(number: int) -> None:
    assert disk_full(OSError(number, os.strerror(number))) is None
    assert disk_full(OSError("no number")) is None


@pytest.mark.parametrize(
    ("folder", "shown", "fix"),
    [
        ("/disk/.a.partial-x/scratch", "/disk", "choose another --out"),
        ("/disk/a/.filling-x/source", "/disk/a", "move the artifact"),
        (f"/temporary/{SCRATCH}x/original", "/temporary", "TMPDIR"),
        ("/temporary/mine/.a.partial-x", "/temporary/mine", "choose another --out"),
    ],
)
def test_the_folder_that_is_full_is_named_and_how_to_choose_another(
    folder: str, shown: str, fix: str, free: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: "/temporary")
    free(0)
    with pytest.raises(ArtifactError) as short:
        require_space(Path(folder), 1)
    full = disk_full(OSError(errno.ENOSPC, "full"), Path(folder))
    assert full is not None
    assert short.value.got == f"0.00 GB free in {shown}"
    assert full.expected == f"free space in {shown}"
    assert fix in short.value.fix
    assert fix in full.fix


def test_where_nothing_else_is_known_it_is_the_temporary_folder_that_is_full() -> None:
    full = disk_full(OSError(errno.ENOSPC, "full"))
    assert full is not None
    assert full.expected == f"free space in {tempfile.gettempdir()}"
    assert "TMPDIR" in full.fix
