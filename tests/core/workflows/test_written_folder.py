"""A folder that a command wrote whole, and may replace only if nothing else is in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vconv.documents import DocumentKind
from vconv.errors import ArtifactError
from vconv.workflows.written_folder import refuse_strangers

KIND = DocumentKind('{"files": [...]}', 2**10, 100, "choose another --out")
MARK = "mark.json"


def written(folder: Path) -> Path:
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "ours").touch()
    (folder / MARK).write_text(json.dumps({"files": ["deep/ours"]}))
    return folder


@pytest.mark.parametrize("above", ["plain", "__pycache__"])
def test_a_file_of_others_is_refused_wherever_the_folder_is(tmp_path: Path, above: str) -> None:
    folder = written(tmp_path / above / "out")
    refuse_strangers(folder, MARK, KIND, ignored=("__pycache__",))
    (folder / "deep" / "__pycache__").mkdir()
    (folder / "deep" / "__pycache__" / "a.pyc").touch()
    refuse_strangers(folder, MARK, KIND, ignored=("__pycache__",))
    (folder / "deep" / "mine").touch()
    with pytest.raises(ArtifactError, match="got deep/mine "):
        refuse_strangers(folder, MARK, KIND, ignored=("__pycache__",))


def test_an_empty_folder_and_a_link_of_others_are_refused(tmp_path: Path) -> None:
    for name in (".git", "link"):
        folder = written(tmp_path / name / "out")
        (folder / name).symlink_to(tmp_path) if name == "link" else (folder / name).mkdir()
        with pytest.raises(ArtifactError, match=rf"got {name} "):
            refuse_strangers(folder, MARK, KIND)


def test_further_files_and_a_folder_without_the_list_are_allowed(tmp_path: Path) -> None:
    folder = written(tmp_path / "out")
    (folder / "later").touch()
    refuse_strangers(folder, MARK, KIND, further=("later",))
    (folder / MARK).unlink()
    refuse_strangers(folder, MARK, KIND)
