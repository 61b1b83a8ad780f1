"""Compare takes the sources of the originals, and says each as the user gave it."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

import vconv
from vconv.catalog.systems import System
from vconv.cli import render
from vconv.convert.sources.base import Source
from vconv.errors import InputError


@pytest.fixture
def weights(small_source: Source, tmp_path: Path) -> Path:
    """A folder of weights, as a user has them, with a space in its path."""
    return shutil.copytree(small_source.folder, tmp_path / "my weights", symlinks=False)


@pytest.fixture
def exported(small_system: System, weights: Path, tmp_path: Path, traced_once: Any) -> dict[str, Any]:
    with traced_once():
        return vconv.export(small_system, str(weights), tmp_path / "a")


def test_an_artifact_from_a_folder_keeps_its_original(
    exported: dict[str, Any], copied: Path, weights: Path, tmp_path: Path
) -> None:
    paths = [tmp_path / "a", copied]
    for given in (str(weights), [str(weights), "synthetic:1"]):
        report = vconv.compare(paths, given, quick=True, budget=0.5)
        assert report.references == {str(path): "live" for path in paths}
        assert report.weights[str(paths[0])].startswith(f"{weights} (a folder, sha256 ")
    report = vconv.compare(paths, quick=True, budget=0.5)
    assert report.references == {str(paths[0]): "golden", str(paths[1]): "live"}


def test_another_number_of_sources_than_artifacts_is_a_sentence(small_artifact: Path, refused: Any) -> None:
    with refused(InputError, "got 2 sources for 1 artifacts", "repeat --weights once for each artifact"):
        vconv.compare([small_artifact], ["a", "b"])


def test_the_next_command_of_an_export_can_be_pasted(
    exported: dict[str, Any], weights: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    render.exported(exported)
    said = capsys.readouterr().out.replace("\\\n", "")
    words = shlex.split(said[said.index("next: ") :])
    assert words == ["next:", "vconv", "validate", str(tmp_path / "a"), "--weights", str(weights)]
    assert "folder:" not in said and "a folder, sha256 " in said


def test_a_report_names_photographs_and_weights_as_the_user_gave_them(
    exported: dict[str, Any], weights: Path, photographs: list[str], tmp_path: Path
) -> None:
    report = vconv.validate(tmp_path / "a", str(weights), images=photographs, quick=True, budget=0.5)
    assert report.inputs.images == ("one.png", "two.jpg")
    assert report.weights.startswith(f"{weights} (folder:")


def test_photographs_of_one_name_are_named_with_their_folders(
    copied: Path, photographs: list[str], tmp_path: Path
) -> None:
    places = []
    for name in ("left", "right"):
        (tmp_path / name).mkdir()
        places.append(shutil.copy(photographs[0], tmp_path / name / "one.png"))
    report = vconv.validate(copied, images=[*places, photographs[1]], quick=True, budget=0.5)
    assert report.inputs.images == ("left/one.png", "right/one.png", "two.jpg")


def test_info_of_an_artifact_without_weights_says_how_to_complete_it(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copied / "model.safetensors").unlink()
    document = {**vconv.info(copied), "without_weights": True}
    assert document["weights_found_again"] is True
    for found_again, end in ((True, ""), (False, " --weights WHERE")):
        render.artifact({**document, "weights_found_again": found_again})
        said = " ".join(capsys.readouterr().out.replace("\\\n", "").split())
        assert said.endswith(f"vconv fill {copied}{end}")
