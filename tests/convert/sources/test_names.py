"""Names of systems: of the catalog first, then of what timm, a hub or a folder has."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import timm

from vconv.catalog.systems import SYSTEMS
from vconv.convert.hubs.base import Snapshot
from vconv.convert.libraries.readers import network
from vconv.convert.sources import names
from vconv.convert.sources.names import find_system
from vconv.errors import UnknownNameError, WeightsError

Refused = Callable[..., AbstractContextManager[None]]
HUB = "huggingface"
COMMIT = "0" * 40
BEIT = {"model_type": "beit", "hidden_size": 32, "image_size": 32}


def folder_of(path: Path, config: dict[str, Any], **files: str) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    for name, text in files.items():
        (path / name.replace("_json", ".json").replace("_md", ".md")).write_text(text)
    return path


@pytest.mark.parametrize("name", ["dinov2-large", "facebook/dinov2-large"])
def test_a_name_of_the_catalog_is_found_there(name: str) -> None:
    assert find_system(name, HUB, None) == (SYSTEMS["dinov2-large"], None)
    assert find_system(name, HUB, "synthetic:3") == (SYSTEMS["dinov2-large"], "synthetic:3")


def test_a_typo_of_the_catalog_gets_the_nearest_names(refused: Refused) -> None:
    with refused(UnknownNameError, "unknown system", "dinov2-large", "vconv list"):
        find_system("dinov2-lrage", HUB, None)


def test_a_name_of_timm_is_a_system_by_timms_own_configuration() -> None:
    system, weights = find_system("timm/convnext_atto.d2_in1k", HUB, None)
    cfg = timm.get_pretrained_cfg("convnext_atto.d2_in1k")
    assert (system.name, system.hub_id) == ("convnext_atto.d2_in1k", "timm/convnext_atto.d2_in1k")
    assert (system.library, weights, system.licence) == ("timm", None, "apache-2.0")
    assert system.config["architecture"] == "convnext_atto"
    assert system.config["num_classes"] == cfg.num_classes
    assert tuple(system.config["pretrained_cfg"]["mean"]) == cfg.mean
    assert system.config["pretrained_cfg"]["crop_pct"] == cfg.crop_pct


def test_a_name_of_timm_without_a_tag_has_that_of_timms_default() -> None:
    default = timm.create_model("convnext_atto", pretrained=False).pretrained_cfg["tag"]
    system, _ = find_system("timm/convnext_atto", HUB, None)
    assert system.hub_id == f"timm/convnext_atto.{default}"


def test_an_unknown_name_or_tag_of_timm_gets_the_nearest(refused: Refused) -> None:
    with refused(UnknownNameError, "timm/convnext_atto"):
        find_system("timm/convnext_attoo", HUB, None)
    with refused(UnknownNameError, "timm/convnext_atto.d2_in1k"):
        find_system("timm/convnext_atto.d2_in2k", HUB, None)


def test_a_folder_is_a_system_by_its_own_configurations(tmp_path: Path) -> None:
    processor = {"image_processor_type": "BeitImageProcessor", "size": 32}
    card = "---\nlicense: mit\n---\n"
    path = folder_of(
        tmp_path / "my beit!", BEIT, preprocessor_config_json=json.dumps(processor), README_md=card
    )
    system, weights = find_system(str(path), HUB, None)
    assert (system.name, system.hub_id, system.library) == ("my-beit", "", "transformers")
    assert (system.licence, weights) == ("mit", str(path))
    assert (system.config, system.preprocessor) == (BEIT, processor)
    assert find_system(str(path), HUB, "elsewhere")[1] == "elsewhere"


def test_a_name_of_the_catalog_is_not_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of(tmp_path / "dinov2-large", BEIT)
    monkeypatch.chdir(tmp_path)
    assert find_system("dinov2-large", HUB, None)[0] is SYSTEMS["dinov2-large"]
    assert find_system("./dinov2-large", HUB, None)[0].config == BEIT


def test_a_folder_without_a_configuration_is_refused(tmp_path: Path, refused: Refused) -> None:
    with refused(WeightsError, "does not describe a network", "a folder without config.json"):
        find_system(str(tmp_path), HUB, None)
    with refused(WeightsError, "does not say which network"):
        find_system(str(folder_of(tmp_path / "empty", {})), HUB, None)


def test_a_flat_configuration_of_timm_is_read_as_timm_reads_it(tmp_path: Path) -> None:
    flat = {"architecture": "vit_tiny_patch16_224", "num_classes": 10, "input_size": [3, 64, 64]}
    system, _ = find_system(str(folder_of(tmp_path / "flat", flat)), HUB, None)
    assert system.config == {
        **{"architecture": "vit_tiny_patch16_224", "num_classes": 10},
        "pretrained_cfg": {"input_size": [3, 64, 64]},
    }
    net = network(system.config)
    stock = timm.create_model(f"local-dir:{tmp_path / 'flat'}", pretrained=False)
    assert net.known.labels == stock.num_classes == 10
    assert {key: spec.shape for key, spec in net.tensors().items()} == {
        key: tuple(value.shape) for key, value in stock.state_dict().items()
    }


def test_a_path_that_is_no_folder_is_refused_as_one(tmp_path: Path, refused: Refused) -> None:
    with refused(WeightsError, "there is no folder", "nothing of that name"):
        find_system(str(tmp_path / "typo"), HUB, None)
    (tmp_path / "config.json").write_text("{}")
    with refused(WeightsError, "there is no folder", "got a file"):
        find_system(str(tmp_path / "config.json"), HUB, None)
    with refused(UnknownNameError, "dinov3-vits16-pretrain"):
        find_system("facebook/dinov3-vits16-pretrained-lvd1689m", HUB, None)


@pytest.mark.parametrize("weights", [None, "synthetic"])
def test_a_repository_is_a_system_at_its_commit(
    weights: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, asked = folder_of(tmp_path / "snapshot", BEIT), []

    def download(*given: Any, **options: Any) -> Snapshot:
        asked.append((given, options["weights"], options["offline"]))
        return Snapshot(path, HUB, given[1], COMMIT)

    monkeypatch.setattr(names.hubs, "download", download)
    system, place = find_system("hub:microsoft/beit@main", HUB, weights, offline=True)
    assert (system.name, system.hub_id) == ("beit", "microsoft/beit")
    assert place == (weights or f"hub:microsoft/beit@{COMMIT}")
    assert asked == [((HUB, "microsoft/beit", "main"), weights is None, True)]


def test_the_image_encoder_of_a_model_of_images_and_text_is_the_system(tmp_path: Path) -> None:
    clip = {"model_type": "clip", "vision_config": {"hidden_size": 32}, "text_config": {"hidden_size": 16}}
    system, _ = find_system(str(folder_of(tmp_path / "clip", clip)), HUB, None)
    assert system.config == {"model_type": "clip_vision_model", "hidden_size": 32}


@pytest.mark.parametrize("model_type", ["bert", "clip_text_model"])
def test_a_folder_with_a_model_of_text_is_no_image_encoder(
    model_type: str, tmp_path: Path, refused: Refused
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with refused(WeightsError, "describes no image encoder", f"model_type '{model_type}'"):
        find_system(str(tmp_path), HUB, None)
