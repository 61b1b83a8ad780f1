"""timm's ``features_only`` models are exported as what they are: some levels of a network, without a norm."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models import save_for_hf
from torch import nn

from vconv.catalog.systems import SYSTEMS
from vconv.convert.architectures.outputs import meanings, output_names, output_shapes, unused_tensors
from vconv.convert.libraries import models
from vconv.convert.libraries.readers import network
from vconv.convert.libraries.timm_features import stored_names
from vconv.convert.sources.asked_outputs import asking
from vconv.convert.sources.names import find_system
from vconv.convert.sources.table import Request, open_source
from vconv.errors import InputError, WeightsError

Refused = Callable[..., AbstractContextManager[None]]
SIDE = 64
NETWORKS: dict[str, tuple[dict[str, Any], list[int], str]] = {
    "resnet18": (dict(layers=(1, 1, 1, 1), channels=(8, 8, 16, 16)), [1, 3], "FeatureListNet"),
    "convnext_tiny": (dict(depths=(1, 1, 1, 1), dims=(8, 8, 16, 16)), [0, 2], "FeatureListNet"),
    "vit_small_patch16_dinov3": (
        dict(embed_dim=32, depth=3, num_heads=2, img_size=SIDE),
        [0, 1],
        "FeatureGetterNet",
    ),
    "vit_small_patch14_reg4_dinov2": (
        dict(embed_dim=24, depth=3, num_heads=2, img_size=SIDE, patch_size=16),
        [0, 1],
        "FeatureGetterNet",
    ),
    "vit_tiny_patch16_224": (
        dict(embed_dim=24, depth=3, num_heads=2, img_size=SIDE),
        [0, 1],
        "FeatureGetterNet",
    ),
    "swin_tiny_patch4_window7_224": (
        dict(embed_dim=16, depths=(1, 1), num_heads=(1, 2), img_size=SIDE, window_size=4),
        [0, 1],
        "FeatureListNet",
    ),
    "densenet121": (dict(growth_rate=4, block_config=(1, 1, 1, 1)), [0, 2], "FeatureListNet"),
    "mobilenetv3_small_050": ({}, [1, 2], "MobileNetV3Features"),
}
"""Networks that timm takes apart in each of its ways, with their arguments and levels."""


def saved(name: str, folder: Path, only: bool = True) -> Path:
    """Save a whole network with a configuration that asks for some of its levels."""
    args, indices, _ = NETWORKS[name]
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = timm.create_model(name, **args)
        for parameter in model.parameters():
            parameter.data += 0.05 * torch.randn(parameter.shape)
    asked = {"features_only": True, "out_indices": indices} if only else {}
    save_for_hf(model, str(folder), model_args={**args, **asked})
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"]["input_size"] = [3, SIDE, SIDE]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def opened(folder: Path, scratch: Path, outputs: tuple[str, ...] = ()) -> Any:
    scratch.mkdir()
    system, weights = find_system(str(folder), "huggingface", None)
    return open_source(Request(system, weights, outputs=outputs), scratch)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_original_is_what_timm_itself_makes(name: str, tmp_path: Path, distance: Any) -> None:
    _, indices, kind = NETWORKS[name]
    folder = saved(name, tmp_path / "saved")
    stock: Any = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert type(stock).__name__ == kind
    source = opened(folder, tmp_path / "scratch")
    net = source.network
    assert output_names(net) == tuple(f"raw_feature_map_{index + 1}" for index in indices)
    assert set(meanings(net)) == set(output_names(net))
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = models.Outputs(models.load(source.folder, net), net)(images)
        for one, expected in zip(found, stock(images), strict=True):
            assert distance(one, expected) < 1e-6
    shapes = output_shapes(net, 2, (SIDE, SIDE)).values()
    assert [tuple(one.shape) for one in found] == list(shapes)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_tensor_of_the_whole_network_is_accounted_for(name: str, tmp_path: Path) -> None:
    folder = saved(name, tmp_path / "saved")
    source = opened(folder, tmp_path / "scratch")
    stored = set(source.network.tensors())
    assert stored == set(source.entries)
    used = stored - unused_tensors(source.network)
    assert used
    assert used < stored, "the classifier is not used, at least"


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_levels_are_asked_for_as_outputs(name: str, tmp_path: Path, refused: Refused) -> None:
    folder = saved(name, tmp_path / "saved", only=False)
    source = opened(folder, tmp_path / "scratch", ("raw_feature_map_1", "raw_feature_map_3"))
    assert source.config["model_args"]["out_indices"] == [0, 2]
    assert output_names(source.network) == source.outputs == ("raw_feature_map_1", "raw_feature_map_3")
    assert "features_only" not in source.own_configurations[0]["model_args"]
    with refused(InputError, "its division into blocks is not known"):
        opened(folder, tmp_path / "second", ("feature_map_1",))
    with refused(InputError, "no level 9", "N from 1 to 5"):
        opened(folder, tmp_path / "third", ("raw_feature_map_9",))


def test_the_levels_of_a_configuration_that_names_some_stay_as_they_are(
    tmp_path: Path, refused: Refused
) -> None:
    folder = saved("resnet18", tmp_path / "saved")
    numbers = [index + 1 for index in NETWORKS["resnet18"][1]]
    same = tuple(f"raw_feature_map_{number}" for number in numbers)
    assert opened(folder, tmp_path / "same", same).outputs == same
    with refused(InputError, "asks for features only", "leave --outputs out"):
        opened(folder, tmp_path / "other", same[:1])


def test_a_configuration_of_transformers_asks_timm_for_nothing() -> None:
    config = SYSTEMS["dinov2-small"].config
    stray = {**config, "model_args": {"features_only": True}}
    assert network(stray).layout == network(config).layout


@pytest.mark.parametrize("indices", [[3, 1], [-1, 0]], ids=str)
def test_levels_in_another_order_are_refused_as_their_maps_could_be_swapped(
    indices: list[int], refused: Refused
) -> None:
    args = {**NETWORKS["resnet18"][0], "features_only": True, "out_indices": indices}
    with refused(WeightsError, "does not name the levels of the network in order", "sort out_indices"):
        network(
            {"architecture": "resnet18", "model_args": args, "pretrained_cfg": {"input_size": [3, 64, 64]}}
        )


def test_a_model_that_is_taken_apart_in_another_way_is_refused(refused: Refused) -> None:
    with refused(WeightsError, "timm takes this network apart in a way", "got odd.weight"):
        stored_names(nn.ModuleDict({"odd": nn.Linear(1, 1)}), nn.Linear(1, 1))


DINOV3 = "vit_small_patch16_dinov3.lvd1689m"


def test_features_of_a_dinov3_that_is_taken_apart_in_another_way_are_refused(refused: Refused) -> None:
    args = {"features_only": True, "out_indices": [1], "feature_cls": "hook"}
    with refused(WeightsError, "features of a DINOv3 only", "remove feature_cls"):
        network({**SYSTEMS[DINOV3].config, "model_args": args})


@pytest.mark.parametrize(
    "name", [DINOV3, "vit_small_patch14_reg4_dinov2.lvd142m", "convnext_tiny.dinov3_lvd1689m"]
)
def test_features_of_a_declared_network_are_outputs_of_its_blocks(name: str) -> None:
    config = SYSTEMS[name].config
    args = {**config.get("model_args", {}), "features_only": True, "out_indices": [0, 2]}
    net = network({**config, "model_args": args})
    assert net.observed is None
    assert net.asked == ("raw_feature_map_1", "raw_feature_map_3")
    count = len(net.stages) or net.blocks
    assert f"1 of {count}, without the final norm" in meanings(net)["raw_feature_map_1"]
    assert asking(net, net.asked) == net
    with pytest.raises(InputError, match="exported as it is"):
        asking(net, ("cls",))
