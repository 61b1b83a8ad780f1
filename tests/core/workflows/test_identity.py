"""What is said of a network is said of the catalog's system only if the network is that system's."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

import vconv
from vconv.artifact import manifest
from vconv.artifact.artifact import Artifact
from vconv.catalog.systems import SYSTEMS, System, unlike
from vconv.cli import render
from vconv.runtime.devices.table import find_device
from vconv.workflows import originals

SMALL = pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
LANGUAGES = {"en": "not the catalog's", "zh": "但不是目录中的"}


@pytest.fixture
def text(copied: Path, request: pytest.FixtureRequest) -> str:
    """The card of a miniature that bears a catalog's name."""
    vconv.card(copied, request.param)
    return (copied / "README.md").read_text("utf-8")


@pytest.mark.parametrize("text", LANGUAGES, indirect=True)
def test_another_size_under_a_catalogs_name_says_what_it_is(text: str, system: System, copied: Path) -> None:
    said = next(line for line in text.splitlines() if f"`{system.name}`" in line)
    assert any(f"{word} `{system.name}`" in said for word in LANGUAGES.values())
    assert "96" in said and ("384" in said or "768" in said or "1024" in said or "img_size" in said)
    assert f"# {system.hub_id}" not in text
    family = manifest.load(copied).system.family
    titles = (f"# A network of the family `{family}` on Ascend NPU", f"# `{family}` 系列的网络 昇腾 NPU 适配")
    assert [line for line in text.splitlines() if line in titles] != []
    assert "\\`" not in text


@pytest.mark.parametrize("text", LANGUAGES, indirect=True)
def test_it_has_no_download_of_the_catalogs_and_no_figures_of_others(text: str, system: System) -> None:
    assert system.hub_id not in text
    assert "hf download" not in text and "git clone" not in text
    assert [row.source for row in system.published if row.source in text] == []
    assert ModelCard(text).data.base_model is None


def test_the_catalogs_own_network_is_called_by_its_name(
    copied: Path, small_system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vconv.catalog.systems.SYSTEMS", {small_system.name: small_system})
    vconv.card(copied, "en")
    text = (copied / "README.md").read_text("utf-8")
    assert f"# {small_system.hub_id} on Ascend NPU" in text.replace("\\_", "_")
    assert f"This is `{small_system.name}`, prepared" in text
    assert "hf download" in text


def test_reports_of_another_size_have_no_figures_of_others(
    copied: Path, small_system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = [replace(find_device("cpu"), kind=kind) for kind in ("cpu", "npu", "cuda")]
    assert originals.published(Artifact.open(copied), devices) == []
    monkeypatch.setattr("vconv.catalog.systems.SYSTEMS", {small_system.name: small_system})
    assert len(originals.published(Artifact.open(copied), devices)) == len(small_system.published)


def test_info_says_how_it_differs(copied: Path, system: System, capsys: pytest.CaptureFixture[str]) -> None:
    document = vconv.info(copied)
    assert document["unlike_catalog"]
    render.artifact(document)
    told = " ".join(capsys.readouterr().out.split())
    assert "not the catalog's" in told and system.hub_id not in told


WHOLE = SYSTEMS["dinov2-large"]


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({}, {}),
        ({"architectures": ["Dinov2ForImageClassification"], "drop_path_rate": 0.1, "id2label": {}}, {}),
        ({"hidden_size": 384}, {"hidden_size": (384, 1024)}),
        ({"hidden_size": None}, {"hidden_size": (None, 1024)}),
        ({"use_swiglu_ffn": True}, {"use_swiglu_ffn": (True, False)}),
        ({"model_type": "dinov2_with_registers"}, {"model_type": ("dinov2_with_registers", "dinov2")}),
    ],
)
def test_a_network_is_the_catalogs_if_every_entry_that_shapes_it_is(
    changed: dict[str, Any], found: dict[str, Any]
) -> None:
    config = {key: value for key, value in {**WHOLE.config, **changed}.items() if value is not None}
    assert unlike(WHOLE, config) == found


def test_what_a_patch_changes_is_no_difference_of_a_patched_network() -> None:
    config = {**WHOLE.config, "hidden_act": "gelu_python"}
    assert unlike(WHOLE, config) == {"hidden_act": ("gelu_python", "gelu")}
    assert unlike(WHOLE, config, patched=True) == {}


@SMALL
def test_another_repository_under_a_catalogs_name_is_held_against_nothing(copied: Path) -> None:
    made = manifest.load(copied)
    made.model_copy(update={"system": made.system.model_copy(update={"hub_id": "me/mine"})}).save(copied)
    assert Artifact.open(copied).unlike == {}


def test_an_artifact_of_0_1_0_is_held_against_the_catalog_by_its_own_configuration() -> None:
    found = Artifact.open(Path(__file__).parents[2] / "data" / "artifact-0.1.0").unlike
    assert found["hidden_size"] == (32, SYSTEMS["dinov3-vits16"].config["hidden_size"])
    assert "hidden_act" not in found and "query_bias" not in found


def test_a_timm_network_is_the_catalogs_only_without_further_arguments() -> None:
    system = SYSTEMS["vit_small_patch16_dinov3.lvd1689m"]
    config = {**system.config, "model_args": {"depth": 3}}
    assert unlike(system, system.config) == {}
    assert unlike(system, config) == {"model_args": ({"depth": 3}, {})}
    assert unlike(replace(system, config=config), config) == {}


@pytest.mark.parametrize("system", ["vit-base-patch16-224-in21k"], indirect=True)
def test_published_figures_are_not_those_of_another_repository_of_that_name(copied: Path) -> None:
    artifact = Artifact.open(copied)
    other = artifact.manifest.system.model_copy(update={"hub_id": "somebody/else"})
    artifact = replace(artifact, manifest=artifact.manifest.model_copy(update={"system": other}))
    assert originals.published(artifact, [find_device("cpu")]) == []


@pytest.mark.parametrize("system", ["vit-base-patch16-224-in21k"], indirect=True)
def test_weights_are_named_in_a_report_although_their_path_is_not_utf_8(small_artifact: Path) -> None:
    artifact = Artifact.open(small_artifact)
    label = artifact.manifest.source.label
    where = Path(os.fsdecode(b"caf\xe9"))
    assert originals.weights_used(artifact, where) == f"caf? ({label})"
    assert originals.weights_used(artifact, Path("there")) == f"there ({label})"
    assert originals.weights_used(artifact, None) == originals.weights_used(artifact, label) == label
