"""`vconv card --page` with an offline model: what its folder has, and which model is not published."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

import vconv
from vconv.artifact import manifest
from vconv.artifact.artifact import Artifact
from vconv.catalog.systems import SYSTEMS, System
from vconv.errors import ArtifactError
from vconv.types import Status
from vconv.validators.checks.compiled import check_compiled
from vconv.validators.report.card.card import render
from vconv.validators.report.card.words import LANGUAGES

Refused = Callable[..., AbstractContextManager[None]]
SOC = "Ascend910B4"
EMPTY_CELL = re.compile(r"^\| `([^`]+)` \| *\|", re.MULTILINE)
OLD = Path(__file__).parents[2] / "data" / "artifact-0.1.0"


@pytest.fixture
def system() -> System:
    """One system: what is tested here is the same for all."""
    return SYSTEMS["dinov3-vits16"]


@pytest.fixture
def pending(
    small_name: str, once: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A copy of an artifact with every further file, whose offline model its script makes."""
    options = {"format": "om", "soc": SOC, "om_precision": "fp16", "with_preprocessing": True}
    with monkeypatch.context() as patched:
        patched.setenv("PATH", os.devnull)
        made = once(
            "published-offline",
            lambda part: vconv.export(small_name, "synthetic:1", part / "made", **options),  # type: ignore[arg-type]
        )
    return shutil.copytree(made / "made", tmp_path / "pending")


@pytest.fixture
def compiled(small_name: str, once: Callable[..., Path], atc: Path) -> Path:
    """An artifact that was exported with ATC, in float32; to be read only."""
    return once(
        "published-compiled",
        lambda part: vconv.export(small_name, "synthetic:1", part / "made", format="om", soc=SOC),
    )


def make(artifact: Path) -> None:
    """Run the script that makes the offline model."""
    subprocess.run([artifact / "om" / "atc.sh"], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.usefixtures("atc")
def test_the_folder_has_the_model_that_the_script_made_and_what_atc_reported(
    pending: Path, tmp_path: Path
) -> None:
    make(pending)
    page = tmp_path / "page"
    vconv.card(pending, page="gitcode", out=page)
    for name in ("model.om", "fusion_result.json", "atc.sh"):
        assert (page / "om" / name).read_bytes() == (pending / "om" / name).read_bytes()
    text = (page / "README.md").read_text()
    assert "| `om/model.om` | offline model" in text and "| `om/fusion_result.json` | which fusion" in text
    (check,) = check_compiled(Artifact.open(page))
    assert check.status is Status.PASSED and "MatMulBiasAddFusionPass 3 times" in check.detail
    vconv.card(pending, page="gitcode", out=page, force=True)  # its own files are no strangers


@pytest.mark.usefixtures("atc")
def test_a_model_that_lost_its_gelu_in_the_published_folder_fails_there(
    pending: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page"
    vconv.card(pending, page="gitcode", out=page)
    monkeypatch.setenv("ATC_FUSES", "fired")
    make(page)  # the script can be run there as in the artifact
    (check,) = check_compiled(Artifact.open(page))
    assert check.status is Status.FAILED and check.detail.startswith("GeluONNXFusionPass put Gelu in 2")


@pytest.mark.usefixtures("atc")
@pytest.mark.parametrize("with_files", ["copy", "none"])
def test_a_model_that_lost_its_gelu_is_not_published(
    pending: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused, with_files: str
) -> None:
    monkeypatch.setenv("ATC_FUSES", "fired")
    make(pending)
    with refused(ArtifactError, "cannot publish", "got om/model.om: fusions: GeluONNXFusionPass put Gelu in"):
        vconv.card(pending, page="gitcode", out=tmp_path / "page", with_files=with_files)
    assert not (tmp_path / "page").exists()


def test_a_model_whose_report_cannot_be_read_is_not_published(
    pending: Path, tmp_path: Path, refused: Refused
) -> None:
    (pending / "om" / "model.om").write_bytes(b"not run here")
    (pending / "om" / "fusion_result.json").write_text("[1]")
    with refused(ArtifactError, "got om/model.om: fusions: om/fusion_result.json cannot be read"):
        vconv.card(pending, page="gitcode", out=tmp_path / "page")


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_file_of_a_card_or_a_page_is_without_words(
    pending: Path, compiled: Path, tmp_path: Path, language: str
) -> None:
    folders = {"pending": pending, "compiled": compiled / "made", "0.1.0": OLD}
    files = {name for folder in folders.values() for name in manifest.load(folder).files}
    assert {"om/keep_dtype.cfg", "om/op_precision.ini", "om/fusion_result.json", "aipp.cfg"} <= files
    for name, folder in folders.items():
        card = render(manifest.load(folder), [], language)
        assert "| `model.onnx` | " in card
        assert not EMPTY_CELL.findall(card)
        vconv.card(folder, language, page="gitcode", out=tmp_path / f"page-{name}")
        assert not EMPTY_CELL.findall((tmp_path / f"page-{name}" / "README.md").read_text())
