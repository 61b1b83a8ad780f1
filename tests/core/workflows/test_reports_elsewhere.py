"""Reports can go to a folder elsewhere, and the artifact then stays as it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vconv
from vconv.errors import ArtifactError, InputError


def kept(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_validate_compare_and_bisect_write_elsewhere_and_nothing_into_the_artifact(
    copied: Path, tmp_path: Path
) -> None:
    before, elsewhere = kept(copied), tmp_path / "not" / "yet"
    found = vconv.validate(copied, quick=True, budget=0.5, reports=elsewhere)
    vconv.compare([copied], quick=True, budget=0.5, reports=elsewhere)
    vconv.bisect(copied, reports=elsewhere)
    assert kept(copied) == before
    assert (Path(found.report).parent, found.card) == (elsewhere, None)
    assert json.loads(Path(found.report).read_text())["status"] == "passed"
    kinds = sorted((path.stem.rpartition("-")[2], path.suffix) for path in elsewhere.iterdir())
    assert kinds == [
        *(("bisect", suffix) for suffix in (".json", ".log", ".svg")),
        *(("compare", suffix) for suffix in (".json", ".log")),
        *(("validate", suffix) for suffix in (".html", ".json", ".log")),
    ]


def test_a_data_set_is_not_judged_with_reports_elsewhere(
    copied: Path, photographs: list[str], tmp_path: Path, refused: Any
) -> None:
    with refused(InputError, "--reports is not used with --dataset"):
        vconv.validate(copied, dataset=Path(photographs[0]).parent, reports=tmp_path / "r")


def test_a_comparison_of_several_is_written_elsewhere_once(copied: Path, tmp_path: Path) -> None:
    other = shutil.copytree(copied, tmp_path / "other")
    vconv.compare([copied, other], quick=True, budget=0.5, reports=tmp_path / "r")
    assert sorted(path.suffix for path in (tmp_path / "r").iterdir()) == [".json", ".log"]


def test_a_folder_that_is_a_file_is_a_sentence_before_anything_is_run(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vconv.validators.validation.run", lambda *args: pytest.fail("it ran"))
    (tmp_path / "file").write_text("")
    with pytest.raises(vconv.VconvError, match="cannot write a report into .*file .*--reports"):
        vconv.validate(copied, quick=True, reports=tmp_path / "file")


INSIDE: dict[str, Callable[[Path], Path]] = {
    "the artifact": lambda folder: folder,
    "a new folder in it": lambda folder: folder / "new" / "folder",
    "its own reports": lambda folder: folder / "reports",
    "a link into it": lambda folder: folder.parent / "link",
    "a way around": lambda folder: folder / ".." / folder.name / "new",
}


@pytest.mark.parametrize("place", INSIDE)
def test_a_place_inside_an_artifact_is_refused_before_anything_is_done(
    copied: Path, small_artifact: Path, refused: Any, place: str
) -> None:
    (copied.parent / "link").symlink_to(copied / "new")
    before, where = sorted(copied.rglob("*")), INSIDE[place](copied)
    commands: list[Callable[[], object]] = [
        lambda: vconv.validate(copied, reports=where),
        lambda: vconv.compare([small_artifact, copied], reports=where),
        lambda: vconv.bisect(copied, reports=where),
    ]
    for command in commands:
        with refused(
            ArtifactError,
            f"cannot write the report into {where} | got a place inside the artifact",
            "choose another --reports, or leave it out",
        ):
            command()
    assert sorted(copied.rglob("*")) == before
