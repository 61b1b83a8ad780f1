"""Backbones of transformers: exported with the feature maps that their configuration names."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from vconv.convert.architectures.outputs import meanings, output_names, output_shapes, unused_tensors
from vconv.convert.libraries import models
from vconv.convert.libraries.readers import network, refuse_unfit
from vconv.convert.sources.asked_outputs import asking
from vconv.convert.sources.names import find_system
from vconv.convert.sources.table import Request, open_source
from vconv.errors import InputError, WeightsError

Refused = Callable[..., AbstractContextManager[None]]
SMALL: dict[str, Any] = dict(
    hidden_size=24,
    num_hidden_layers=3,
    num_attention_heads=2,
    image_size=32,
    patch_size=8,
    out_features=["stage1", "stage3"],
)
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "Dinov2Backbone": ("dinov2", dict(mlp_ratio=2)),
    "Dinov2WithRegistersBackbone": ("dinov2_with_registers", dict(mlp_ratio=2, num_register_tokens=2)),
    "DINOv3ViTBackbone": ("dinov3_vit", dict(intermediate_size=48, num_register_tokens=2)),
}
CONVNEXT = "DINOv3ConvNextBackbone"
STAGES: dict[str, Any] = dict(hidden_sizes=[8, 8, 16, 24], depths=[1, 2, 1, 1], image_size=64)
"""Numbers of a small ConvNeXt, whose image is of two patches."""
FAMILIES[CONVNEXT] = ("dinov3_convnext", {**STAGES, "out_features": ["stage1", "stage4"]})
THERE = [name for name in FAMILIES if hasattr(transformers, name)]
"""Version 4.57 has no backbone of DINOv3."""
needs_convnext = pytest.mark.skipif(CONVNEXT not in THERE, reason="transformers 4.57 has no such class")
ASKED: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("Dinov2Backbone", {}, ("feature_map_1", "feature_map_3")),
    ("Dinov2Backbone", {"out_features": None}, ("feature_map_3",)),
    ("Dinov2Backbone", {"out_features": None, "out_indices": [2, -1]}, ("feature_map_2", "feature_map_3")),
    ("Dinov2Backbone", {"out_indices": [1, 3]}, ("feature_map_1", "feature_map_3")),
    ("Dinov2Backbone", {"out_features": ["stem", "stage2"]}, ("feature_map_0", "feature_map_2")),
    ("Dinov2Backbone", {"apply_layernorm": False}, ("raw_feature_map_1", "raw_feature_map_3")),
    ("Dinov2Backbone", {"reshape_hidden_states": False}, ("tokens_1", "tokens_3")),
    ("Dinov2WithRegistersBackbone", {}, ("feature_map_1", "feature_map_3")),
    ("DINOv3ViTBackbone", {"apply_layernorm": False}, ("feature_map_3", "raw_feature_map_1")),
    ("DINOv3ViTBackbone", {"reshape_hidden_states": False}, ("patches_1", "patches_3")),
    (CONVNEXT, {}, ("feature_map_1", "feature_map_4")),
    (CONVNEXT, {"out_features": None}, ("feature_map_4",)),
    (CONVNEXT, {"out_features": None, "out_indices": [2, -1]}, ("feature_map_2", "feature_map_4")),
    (
        "DINOv3ViTBackbone",
        {"return_class_token": True},
        ("feature_map_1", "feature_map_3", "cls_1", "cls_3"),
    ),
]


def configuration(name: str, **options: Any) -> dict[str, Any]:
    family, numbers = FAMILIES[name]
    given = {**SMALL, **numbers, **options}
    defaults = dict(num_channels=3, hidden_act="gelu", num_attention_heads=2)
    return {**defaults, **given, "model_type": family, "architectures": [name]}


@pytest.mark.parametrize(("name", "options", "expected"), ASKED)
def test_a_backbone_has_the_outputs_that_its_configuration_names(
    name: str, options: dict[str, Any], expected: tuple[str, ...]
) -> None:
    net = network(configuration(name, **options))
    assert output_names(net) == expected
    assert set(meanings(net)) == set(expected)


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """The function that saves a stock backbone with its own weights."""

    def save(name: str, **options: Any) -> Path:
        factory = getattr(transformers, name)
        config = transformers.AutoConfig.for_model(
            FAMILIES[name][0], **{**SMALL, **FAMILIES[name][1], **options}
        )
        with torch.random.fork_rng():
            torch.manual_seed(5)
            model = factory(config)
            for parameter in model.parameters():
                parameter.data += 0.1 * torch.randn(parameter.shape)
        model.save_pretrained(tmp_path / "backbone")
        side = {"height": 32, "width": 32}
        transformers.ViTImageProcessor(size=side).save_pretrained(tmp_path / "backbone")
        return tmp_path / "backbone"

    return save


@pytest.mark.parametrize("options", [{}, {"apply_layernorm": False}, {"reshape_hidden_states": False}])
@pytest.mark.parametrize("name", THERE)
def test_the_original_is_the_stock_backbone(
    name: str, options: dict[str, Any], folder: Callable[..., Path], tmp_path: Path, distance: Any
) -> None:
    path = folder(name, **options)
    (tmp_path / "scratch").mkdir()
    system, weights = find_system(str(path), "huggingface", None)
    source = open_source(Request(system, weights), tmp_path / "scratch")
    side = 2 * source.network.numbers.patch if source.network.stages else 32
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    model = models.load(source.folder, source.network)
    assert type(model).__name__ == name
    with torch.no_grad():
        found = dict(
            zip(output_names(source.network), models.Outputs(model, source.network)(images), strict=True)
        )
        expected = getattr(transformers, name).from_pretrained(path).eval()(images).feature_maps
    by_block = sorted(found, key=lambda one: int(one.rpartition("_")[2]))
    for output, value in zip(by_block, expected, strict=True):
        assert distance(found[output], value) < 1e-6, output
    shapes = output_shapes(source.network, 2, (side, side))
    assert {output: tuple(value.shape) for output, value in found.items()} == shapes


@pytest.mark.parametrize(
    "options",
    [
        {"out_features": ["stage4"]},
        {"out_features": ["stage1", "stage1"]},
        {"out_features": []},
        {"out_features": "stage1"},
        {"out_features": ["stage1"], "out_indices": [2]},
    ],
)
def test_stages_that_are_not_there_are_refused_in_one_line(options: dict[str, Any], refused: Refused) -> None:
    with refused(WeightsError, "config.json names stages that the backbone has not", "stage1 to stage3"):
        network({**configuration("Dinov2Backbone"), **options})


def test_a_backbone_is_exported_as_what_it_is(refused: Refused) -> None:
    config = configuration("Dinov2Backbone")
    refuse_unfit(config, ["embeddings.cls_token"])
    net = network(config)
    assert asking(net, net.asked) == net
    with refused(InputError, "--outputs does not apply to a backbone", "feature_map_1, feature_map_3"):
        asking(net, ("cls",))
    with refused(WeightsError, "the weights have a classifier, but config.json asks for Dinov2Backbone"):
        refuse_unfit(config, ["classifier.weight"])
    with refused(WeightsError, "ViTBackbone"):
        refuse_unfit({**config, "model_type": "vit", "architectures": ["ViTBackbone"]}, [])


def test_the_stem_of_a_convnext_is_the_image_and_no_output(refused: Refused) -> None:
    with refused(WeightsError, "names stages that the backbone has not", "stage1 to stage4, or 1 to 4"):
        network(configuration(CONVNEXT, out_features=["stem", "stage4"]))


@needs_convnext
def test_the_final_norm_of_a_whole_convnext_is_kept_but_not_used(
    folder: Callable[..., Path], tmp_path: Path, distance: Any
) -> None:
    path = folder(CONVNEXT)
    whole: Any = transformers.DINOv3ConvNextModel(transformers.DINOv3ConvNextConfig(**STAGES))
    whole.save_pretrained(tmp_path / "whole")
    (path / "model.safetensors").write_bytes((tmp_path / "whole" / "model.safetensors").read_bytes())
    (tmp_path / "scratch").mkdir()
    system, weights = find_system(str(path), "huggingface", None)
    source = open_source(Request(system, weights), tmp_path / "scratch")
    assert unused_tensors(source.network) == {"layer_norm.weight", "layer_norm.bias"}
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = models.Outputs(models.load(source.folder, source.network), source.network)(images)
        expected = getattr(transformers, CONVNEXT).from_pretrained(path).eval()(images).feature_maps
    for one, value in zip(found, expected, strict=True):
        assert distance(one, value) < 1e-6
