"""Artifacts that are passed on without weights, and completed by whoever has them."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

import vconv
from vconv.artifact import manifest
from vconv.artifact.artifact import Artifact
from vconv.catalog.systems import System
from vconv.convert.sources.table import Request, open_source
from vconv.convert.weights.ledger import LEDGER_FILE
from vconv.errors import ArtifactError, WeightsError
from vconv.types import WEIGHTS_FILE
from vconv.workflows import fill, originals


@pytest.fixture
def weightless(small_name: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is :func:`small_artifact`, exported without its weights; the test's own to change."""
    made = tmp_path_factory.getbasetemp() / "weightless" / small_name
    if not made.exists():
        vconv.export(small_name, "synthetic:1", made, batch=2, without_weights=True)
    return shutil.copytree(made, tmp_path / "weightless")


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_only_the_weights_are_left_out_and_their_hash_stays(weightless: Path, small_artifact: Path) -> None:
    whole = small_artifact
    assert sorted([*names(weightless), WEIGHTS_FILE]) == names(whole)
    made, other = manifest.load(weightless), manifest.load(whole)
    assert (made.without_weights, other.without_weights) == (True, False)
    assert made.files == other.files
    for name in made.files.keys() - {WEIGHTS_FILE}:
        assert (weightless / name).read_bytes() == (whole / name).read_bytes()


def test_nothing_runs_without_weights_and_the_error_says_how_to_get_them(weightless: Path) -> None:
    before = names(weightless)
    for use in (vconv.load, vconv.validate, lambda path: vconv.compare([path])):
        with pytest.raises(ArtifactError, match=r"has no weights .*vconv fill .*--weights WHERE"):
            use(weightless)
    assert names(weightless) == before


def test_info_still_shows_what_it_is(weightless: Path) -> None:
    found = vconv.info(weightless)
    assert (found["without_weights"], found["missing"]) == (True, [WEIGHTS_FILE])


def test_a_filled_artifact_is_the_whole_one_and_validates(weightless: Path, small_artifact: Path) -> None:
    whole = small_artifact
    document = vconv.fill(weightless, "synthetic:1")
    assert (weightless / WEIGHTS_FILE).read_bytes() == (whole / WEIGHTS_FILE).read_bytes()
    assert document["sha256"] == manifest.load(whole).files[WEIGHTS_FILE].sha256
    assert names(weightless) == names(whole)
    report = vconv.validate(weightless, quick=True, budget=1e-3)
    assert report.passed


@pytest.mark.parametrize("way", ["folder", "file", "the very file"])
def test_weights_can_be_given_in_any_way(
    weightless: Path, small_artifact: Path, small_system: System, way: str
) -> None:
    scratch = weightless.with_name("scratch")
    scratch.mkdir()
    folder = open_source(Request(small_system, "synthetic:1"), scratch).folder
    given = {"folder": folder, "file": folder / WEIGHTS_FILE}.get(way)
    if given is None:
        given = small_artifact / WEIGHTS_FILE
    vconv.fill(weightless, str(given))
    assert vconv.validate(weightless, quick=True, budget=1e-3).passed


def test_other_weights_are_refused_and_nothing_is_left(weightless: Path) -> None:
    before = names(weightless)
    with pytest.raises(WeightsError, match="not the weights that the artifact was made from .*other values"):
        vconv.fill(weightless, "synthetic:6")
    with pytest.raises(WeightsError, match="no weights at nowhere"):
        vconv.fill(weightless, "nowhere")
    assert names(weightless) == before


def test_an_artifact_that_has_its_weights_is_left_alone(weightless: Path) -> None:
    vconv.fill(weightless, "synthetic:1")
    with pytest.raises(ArtifactError, match="has its weights already"):
        vconv.fill(weightless, "synthetic:1")


def test_a_ledger_that_was_changed_is_not_believed(weightless: Path) -> None:
    path = weightless / LEDGER_FILE
    lines = json.loads(path.read_text())
    path.write_text(json.dumps(lines[1:]))
    with pytest.raises(ArtifactError, match=r"ledger\.json was changed"):
        vconv.fill(weightless, "synthetic:1")


def test_a_full_disk_is_noticed_before_anything_is_written(
    weightless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = names(weightless)
    usage = shutil.disk_usage(weightless)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(ArtifactError, match="not enough space on the disk"):
        vconv.fill(weightless, "synthetic:1")
    assert names(weightless) == before


ONE = pytest.mark.parametrize("system", ["vit-base-patch16-224-in21k"], indirect=True)
"""One system for what does not depend on which."""


@ONE
def test_without_being_told_it_is_filled_from_where_its_weights_came_from(weightless: Path) -> None:
    vconv.fill(weightless)
    assert (weightless / WEIGHTS_FILE).is_file()


@ONE
def test_a_hub_is_named_with_its_revision_and_a_folder_must_be_given(weightless: Path) -> None:
    made = manifest.load(weightless)
    there = {"kind": "modelscope", "identity": "some/one", "revision": "abc", "synthetic": False}
    of_hub = made.model_copy(update={"source": made.source.model_copy(update=there)})
    asked = originals.request(Artifact(weightless, of_hub), None, "huggingface", offline=True)
    assert (asked.weights, asked.hub, asked.offline) == ("hub:some/one@abc", "modelscope", True)
    here = {"kind": "folder", "identity": "1234", "revision": "", "synthetic": False}
    made.model_copy(update={"source": made.source.model_copy(update=here)}).save(weightless)
    with pytest.raises(WeightsError, match="got weights from a folder .* expected --weights"):
        vconv.fill(weightless)


@ONE
def test_an_artifact_that_is_not_whole_is_refused_in_a_sentence(weightless: Path) -> None:
    made = manifest.load(weightless)
    files = {name: record for name, record in made.files.items() if name != WEIGHTS_FILE}
    made.model_copy(update={"files": files}).save(weightless)
    with pytest.raises(ArtifactError, match=r"does not know model\.safetensors"):
        vconv.fill(weightless)
    made.save(weightless)
    (weightless / LEDGER_FILE).unlink()
    with pytest.raises(ArtifactError, match=r"ledger\.json is missing"):
        vconv.fill(weightless, "synthetic:1")


@ONE
def test_an_artifact_that_cannot_be_written_is_refused_in_a_sentence(
    weightless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(prefix: str, dir: Path) -> str:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), f"{dir}/{prefix}x")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(ArtifactError, match="cannot write to .* got Read-only file system"):
        vconv.fill(weightless, "synthetic:1")


@ONE
def test_what_a_killed_fill_left_is_swept_by_the_next_and_a_living_one_is_let_be(weightless: Path) -> None:
    (weightless / ".filling-killed" / "source").mkdir(parents=True)
    with fill.workplace(weightless, ".filling-") as living:
        vconv.fill(weightless, "synthetic:1")
        assert [path for path in weightless.iterdir() if path.name.startswith(".")] == [living]
