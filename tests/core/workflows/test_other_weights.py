"""Weights that cannot be an artifact's original are refused by their cause, before anything is run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import vconv
from vconv.artifact import manifest
from vconv.errors import ArtifactError, InputError, WeightsError
from vconv.types import CONFIG_FILE, MANIFEST_FILE
from vconv.workflows import originals

Refused = Callable[..., Any]
NUMBERS: dict[str, Any] = dict(
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=48,
    image_size=32,
    patch_size=8,
)


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Stock classifiers of 5 and of 7 classes, with an artifact of the first beside it."""
    home = tmp_path_factory.mktemp("classifiers")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        for labels in (5, 7):
            config = transformers.ViTConfig(**NUMBERS, num_labels=labels)
            transformers.ViTForImageClassification(config).save_pretrained(home / str(labels))
            processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
            processor.save_pretrained(home / str(labels))
    vconv.export(str(home / "5"), out=home / "artifact")
    return {labels: home / str(labels) for labels in (5, 7)}


@pytest.fixture
def artifact(classifiers: dict[int, Path], tmp_path: Path) -> Path:
    return shutil.copytree(classifiers[5].parent / "artifact", tmp_path / "artifact")


@pytest.mark.parametrize("with_config", [True, False])
def test_another_number_of_classes_is_named_beside_the_artifacts(
    with_config: bool, classifiers: dict[int, Path], artifact: Path, tmp_path: Path, refused: Refused
) -> None:
    given = shutil.copytree(classifiers[7], tmp_path / "given")
    if not with_config:
        (given / CONFIG_FILE).unlink()
    with refused(WeightsError, "another network than the artifact's", "got 7 classes", "expected 5 classes"):
        vconv.validate(artifact, given, quick=True)


def test_a_tensor_of_another_shape_is_named(
    classifiers: dict[int, Path], artifact: Path, tmp_path: Path, refused: Refused
) -> None:
    config = transformers.ViTConfig(**NUMBERS | {"intermediate_size": 72}, num_labels=5)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "given")
    shutil.copy(classifiers[5] / "preprocessor_config.json", tmp_path / "given")
    with refused(
        WeightsError, "another network than the artifact's", "as [72]", "as [48], as in the artifact"
    ):
        vconv.validate(artifact, tmp_path / "given", quick=True)


@pytest.mark.parametrize("command", [vconv.validate, vconv.bisect])
@pytest.mark.parametrize("given", ["synthetic", "synthetic:0"])
def test_synthetic_weights_are_not_those_of_a_folder(
    command: Callable[..., Any], given: str, artifact: Path, refused: Refused
) -> None:
    with refused(
        WeightsError, "not the weights that the artifact was made from", f"got {given} |", "folder:"
    ):
        command(artifact, weights=given)
    assert not (artifact / "reports").exists()


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
def test_synthetic_weights_of_another_seed_are_refused_before_they_are_drawn(
    small_artifact: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    monkeypatch.setattr(originals, "open_source", None)
    with refused(WeightsError, "got synthetic:6", "expected synthetic:1", "leave --weights out"):
        vconv.validate(small_artifact, "synthetic:6", quick=True)


def test_a_refusal_of_given_weights_keeps_its_own_fix(
    artifact: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    made = manifest.load(artifact)
    asked = made.source.model_copy(update={"outputs": ("cls", "patches")})
    made.model_copy(update={"source": asked}).save(artifact)

    def refuse(*given: Any) -> Any:
        raise InputError("a hub is not installed", got="nothing", expected="a hub", fix="install the hub")

    monkeypatch.setattr(originals, "open_source", refuse)
    with refused(InputError, "a hub is not installed", "fix: install the hub"):
        vconv.reference(artifact, "hub:OWNER/NAME", out=artifact.parent / "reference")


@pytest.mark.parametrize("command", [vconv.validate, vconv.bisect])
def test_outputs_that_the_network_lacks_are_the_manifests_fault(
    command: Callable[..., Any], classifiers: dict[int, Path], artifact: Path, refused: Refused
) -> None:
    document = json.loads((artifact / MANIFEST_FILE).read_text())
    document["source"]["outputs"] = ["cls", "feature_map_9"]
    manifest.Manifest.model_validate(document).save(artifact)
    with refused(
        ArtifactError, "the manifest does not name outputs of its network", "feature_map_9", "fix: export"
    ):
        command(artifact, weights=str(classifiers[5]))


def test_its_own_weights_are_taken(classifiers: dict[int, Path], artifact: Path) -> None:
    assert vconv.validate(artifact, classifiers[5], quick=True, budget=1e-3).passed
