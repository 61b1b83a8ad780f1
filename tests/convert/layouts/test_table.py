from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
import transformers
from examples import EXAMPLES, FURTHER

from vconv.catalog.systems import SYSTEMS, System, miniature
from vconv.convert.architectures.base import ANY_SIZE
from vconv.convert.layouts.table import LAYOUTS
from vconv.convert.libraries.readers import READERS, family_of, library_of_config, network
from vconv.errors import UnknownNameError, WeightsError
from vconv.types import Config

Refused = Callable[..., AbstractContextManager[None]]
Shapes = dict[str, tuple[int, ...]]

CLASSIFIERS = [
    name for name, system in EXAMPLES.items() if "classifier" in network(system.config).layout.heads
]
TIMM = [name for name, system in EXAMPLES.items() if system.library == "timm"]
TRANSFORMERS = [name for name in EXAMPLES if name not in TIMM]
FAMILIES = {
    "dinov3-vits16": "dinov3_vit",
    "vit_small_patch16_dinov3.lvd1689m": "timm dinov3",
    "dinov2-large": "dinov2",
    "vit_small_patch14_reg4_dinov2.lvd142m": "timm dinov2",
    "vit-base-patch16-224-in21k": "vit",
}
COUNTS = {
    "dinov3-vits16": 211,
    "vit_small_patch16_dinov3.lvd1689m": 162,
    "dinov2-large": 439,
    "vit_small_patch14_reg4_dinov2.lvd142m": 175,
    "vit-base-patch16-224-in21k": 200,
}
"""Number of tensors in each published file."""
FLAGS = [
    (name, flag)
    for name in TRANSFORMERS
    for flag in transformers.AutoConfig.for_model(SYSTEMS[name].config["model_type"]).to_dict()
    if flag.endswith("_bias") or flag == "use_mask_token"
]
"""Every flag of transformers' configurations that decides whether a tensor exists."""
VARIATIONS: list[tuple[str, dict[str, Any]]] = [
    ("vit_small_patch16_dinov3", {}),
    ("vit_small_patch16_dinov3", {"global_pool": "token"}),
    ("vit_small_patch16_dinov3", {"use_fc_norm": True}),
    ("vit_small_patch16_dinov3", {"use_fc_norm": True, "use_post_transformer_norm": True}),
    ("vit_small_patch16_dinov3", {"dynamic_img_size": False, "img_size": 96}),
    ("vit_small_patch16_dinov3", {"num_reg_tokens": 7, "mlp_ratio": 3}),
    ("vit_base_patch16_dinov3", {"depth": 2}),
    ("vit_small_patch14_reg4_dinov2", {}),
    ("vit_small_patch14_reg4_dinov2", {"qkv_bias": False}),
    ("vit_small_patch14_reg4_dinov2", {"global_pool": "avg"}),
    ("vit_small_patch14_reg4_dinov2", {"global_pool": "avg", "fc_norm": False}),
    ("vit_small_patch14_reg4_dinov2", {"img_size": 98, "dynamic_img_size": True}),
    ("vit_small_patch14_reg4_dinov2", {"in_chans": 4, "embed_dim": 192, "num_heads": 3}),
    ("vit_small_patch14_dinov2", {}),
    ("vit_base_patch14_reg4_dinov2", {"depth": 2}),
]
"""timm's names of models, each with ``model_args`` that a fine-tuned model may have."""


def empty_model(config: Any, factory: Any = transformers.AutoModel) -> Any:
    with torch.device("meta"):
        return factory.from_config(transformers.AutoConfig.for_model(**config))


def saved(model: Any, folder: Path) -> Shapes:
    """Save a model with transformers, and return the keys and shapes in the file."""
    model.save_pretrained(folder)
    return shapes_of(safetensors.torch.load_file(folder / "model.safetensors"))


def shapes_of(tensors: Any) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def declared(config: Any, keys: Any = ()) -> Shapes:
    net = network(config, keys)
    return {net.stored_key(tensor): tensor.shape for tensor in net.tensors().values()}


def test_every_layout_is_listed_under_its_own_family() -> None:
    assert {family: layout.family for family, layout in LAYOUTS.items()} == {key: key for key in LAYOUTS}


def test_every_system_has_its_layout() -> None:
    assert {name: family_of(system.config) for name, system in EXAMPLES.items()} == FAMILIES


def test_a_system_and_its_layout_have_the_same_library(system: System) -> None:
    assert library_of_config(system.config) == system.library


def test_no_configuration_belongs_to_two_readers(system: System) -> None:
    assert len([reader for reader in READERS.values() if reader.describes(system.config)]) == 1


def test_the_published_files_have_as_many_tensors_as_the_layout(system: System) -> None:
    assert len(network(system.config).tensors()) == COUNTS[system.name]


def test_a_layout_has_the_keys_and_shapes_that_its_library_saves(
    small_system: System, build: Callable[[Any], Any], tmp_path: Path
) -> None:
    model = build(small_system.config)
    found = shapes_of(model.state_dict()) if small_system.library == "timm" else saved(model, tmp_path)
    assert declared(small_system.config) == found


@pytest.mark.parametrize("name", FURTHER)
def test_a_further_structure_has_the_keys_and_shapes_that_its_library_saves(
    name: str, tmp_path: Path
) -> None:
    config = miniature(FURTHER[name]).config
    net = network(config)
    if FURTHER[name].library == "timm":
        (tmp_path / "config.json").write_text(json.dumps(dict(config)))
        model = timm.create_model(f"local-dir:{tmp_path}", pretrained=False)
        found = shapes_of(model.state_dict())
    else:
        (factory,) = config["architectures"]
        model = getattr(transformers, factory)(transformers.AutoConfig.for_model(**config))
        found = saved(model, tmp_path)
    assert declared(config) == found
    in_memory = [name.removeprefix(net.prefix) for name in dict(model.named_parameters())]
    # transformers 5 splits the packed gated MLP of DINOv2 when it loads it.
    assert set(map(net.layout.disk_key, in_memory)) == set(net.tensors())


@pytest.mark.parametrize("system", CLASSIFIERS, indirect=True)
def test_a_classifier_has_the_keys_and_shapes_that_its_library_saves(
    small_system: System, classifier_folder: Path
) -> None:
    weights = safetensors.torch.load_file(classifier_folder / "model.safetensors")
    label = {"num_classes": 5} if small_system.library == "timm" else {"num_labels": 5}
    config = {**small_system.config, **label}
    assert declared(config, weights) == shapes_of(weights)
    assert network(config, weights).head == "classifier"
    assert network(config, weights).numbers.labels == 5


@pytest.mark.parametrize("system", sorted({*CLASSIFIERS} & {*TRANSFORMERS}), indirect=True)
def test_labels_are_counted_from_the_configuration_that_transformers_saves(
    classifier_folder: Path,
) -> None:
    config = transformers.AutoConfig.from_pretrained(classifier_folder).to_dict()
    assert network(config, ["classifier.weight"]).tensors()["classifier.bias"].shape == (5,)


def test_the_full_sized_layout_is_that_of_the_stock_model(
    system: System, build: Callable[[Any], Any]
) -> None:
    with torch.device("meta"):
        names = shapes_of(dict(build(system.config).named_parameters()))
    disk_key = network(system.config).layout.disk_key
    assert {disk_key(name): shape for name, shape in names.items()} == declared(system.config)
    assert len({disk_key(name) for name in names}) == len(names)


@pytest.mark.parametrize(("architecture", "arguments"), VARIATIONS)
@pytest.mark.parametrize("classes", [0, 5])
def test_a_timm_layout_follows_its_model_arguments(
    architecture: str, arguments: dict[str, Any], classes: int
) -> None:
    with torch.device("meta"):
        model: Any = timm.create_model(architecture, num_classes=classes, **arguments)
    config = {"architecture": architecture, "num_classes": classes, "model_args": arguments}
    config["pretrained_cfg"] = {**model.default_cfg, "num_classes": classes}
    stored = shapes_of(model.state_dict())
    assert declared(config, stored) == stored
    numbers = network(config, stored).numbers
    assert numbers.pooling == {"avg": "avg", "token": "cls"}[model.global_pool]
    assert (ANY_SIZE in numbers.flags) is model.dynamic_img_size
    assert numbers.image == tuple(model.patch_embed.img_size)


def test_an_avg_pooled_timm_dinov2_has_its_norm_after_pooling() -> None:
    config = {"architecture": "vit_small_patch14_reg4_dinov2", "model_args": {"global_pool": "avg"}}
    keys = set(declared({**config, "num_classes": 0, "pretrained_cfg": {"num_classes": 0}}))
    assert {"fc_norm.weight", "fc_norm.bias"} <= keys
    assert not {"norm.weight", "norm.bias"} & keys


def test_every_name_in_memory_maps_to_its_key_on_disk(
    small_system: System, build: Callable[[Any], Any]
) -> None:
    net = network(small_system.config)
    names = dict(build(small_system.config).named_parameters())
    assert sorted(map(net.layout.disk_key, names)) == sorted(net.tensors())


def test_a_key_on_disk_maps_to_itself(small_system: System) -> None:
    net = network(small_system.config)
    assert [net.layout.disk_key(key) for key in net.tensors()] == list(net.tensors())


@pytest.mark.parametrize("system", sorted({*CLASSIFIERS} & {*TRANSFORMERS}), indirect=True)
def test_every_name_in_a_classifiers_memory_maps_to_its_key_on_disk(small_system: System) -> None:
    model = empty_model(small_system.config, transformers.AutoModelForImageClassification)
    mapped = map(network(small_system.config).layout.disk_key, dict(model.named_parameters()))
    assert sorted(mapped) == sorted(declared(small_system.config, ["classifier.weight"]))


@pytest.mark.parametrize(("system", "flag"), FLAGS, indirect=["system"])
@pytest.mark.parametrize("value", [True, False])
def test_every_flag_adds_and_removes_the_same_tensors_as_in_transformers(
    small_system: System, build: Callable[[Any], Any], flag: str, value: bool, tmp_path: Path
) -> None:
    config = {**small_system.config, flag: value}
    assert declared(config) == saved(build(config), tmp_path)


def test_every_bias_has_the_flag_of_its_rule(system: System) -> None:
    layout = network(system.config).layout
    stored = {key: rule.when for rule in layout.rules for key in rule.stored}
    for ending, flag in layout.biases.items():
        assert {when for key, when in stored.items() if key.endswith(ending)} == {flag}


UNUSED: dict[str, set[str]] = {
    "dinov3-vits16": {"embeddings.mask_token"},
    "dinov2-large": {"embeddings.mask_token"},
}


def test_the_mask_token_is_the_only_unused_tensor(system: System) -> None:
    assert network(system.config).unused == UNUSED.get(system.name, set())


_SEPARATE = {f"attention.attention.{name}.bias": "qkv_bias" for name in ("query", "key", "value")}
BIASES: dict[str, dict[str, str]] = {
    "dinov3-vits16": {
        "attention.q_proj.bias": "query_bias",
        "attention.k_proj.bias": "key_bias",
        "attention.v_proj.bias": "value_bias",
    },
    "vit_small_patch16_dinov3.lvd1689m": {},
    "vit_small_patch14_reg4_dinov2.lvd142m": {"attn.qkv.bias": "qkv_bias"},
    "dinov2-large": _SEPARATE,
    "vit-base-patch16-224-in21k": _SEPARATE,
}


def test_the_biases_that_may_be_stripped_follow_from_the_rules(system: System) -> None:
    assert network(system.config).layout.biases == BIASES[system.name]


def test_unused_tensors_do_not_change_the_output(
    small_source: Any, stock: Callable[[Path], Any], named: Callable[..., Any], pixel_values: torch.Tensor
) -> None:
    net, model = small_source.network, stock(small_source.folder)
    expected = named(model, pixel_values)
    unused = [value for name, value in model.named_parameters() if net.layout.disk_key(name) in net.unused]
    for value in unused:
        value.data.fill_(1e3)
    for name, found in named(model, pixel_values).items():
        assert torch.equal(found, expected[name])
    assert len(unused) == len(net.unused)


def test_counts_are_those_of_the_stock_model(small_system: System, build: Callable[[Any], Any]) -> None:
    net, model = network(small_system.config), build(small_system.config)
    if small_system.library == "timm":
        blocks, registers = len(model.blocks), model.num_prefix_tokens - 1
        heads, width = model.blocks[0].attn.num_heads, model.num_features
    else:
        blocks, registers = model.config.num_hidden_layers, getattr(model.config, "num_register_tokens", 0)
        heads, width = model.config.num_attention_heads, model.config.hidden_size
    assert (net.blocks, net.registers, net.head_dim * heads, net.numbers.width) == (
        blocks, registers, width, width,
    )  # fmt: skip
    assert {tensor.block for tensor in net.tensors().values()} == {None, *range(net.blocks)}


@pytest.mark.parametrize("keys", [(), ["pooler.dense.weight"], ["vit.pooler.dense.bias", "x"]])
def test_without_a_classifier_a_network_has_its_default_head(small_system: System, keys: list[str]) -> None:
    net = network(small_system.config, keys)
    assert net.head != "classifier"
    assert net.prefix == ""
    assert net == network(small_system.config)


def test_without_a_pooler_on_disk_a_network_has_none(small_system: System) -> None:
    net = network(small_system.config, ["blocks.0.norm1.weight"])
    assert net.head == ""
    assert [key for key in net.tensors() if "pooler" in key] == []


def test_keys_may_be_an_iterator(small_system: System) -> None:
    assert network(small_system.config, iter(["x"])) == network(small_system.config, ["x"])


@pytest.mark.parametrize("system", TRANSFORMERS, indirect=True)
def test_an_unknown_model_type_names_the_nearest(system: System, refused: Refused) -> None:
    family = system.config["model_type"]
    with refused(UnknownNameError, "unknown architecture", repr(family + "x"), "one of ", family):
        network({**system.config, "model_type": family + "x"})


@pytest.mark.parametrize(
    ("config", "near"),
    [
        ({"model_type": "convnxt"}, "one of convnext, convnextv2"),
        ({"model_type": "swinv22"}, "one of swinv2, swin"),
        ({"architecture": "resnet5", "pretrained_cfg": {}}, "one of resnet5"),
    ],
)
def test_a_typing_error_names_the_nearest_encoders_of_the_library(
    config: Config, near: str, refused: Refused
) -> None:
    with refused(UnknownNameError, "unknown architecture", near):
        network(config)


@pytest.mark.parametrize(
    "architecture", ["vit_small_patch16_dinov3_x", "vit_small_patch16_224_x", "xvit_small_dinov3"]
)
def test_an_architecture_that_timm_does_not_have_is_refused(architecture: str, refused: Refused) -> None:
    with refused(UnknownNameError, "unknown architecture", repr(architecture)):
        network({"architecture": architecture, "pretrained_cfg": {}})


@pytest.mark.parametrize("config", [{}, {"architecture": "", "pretrained_cfg": {}}])
def test_a_configuration_that_names_nothing_is_refused(config: Config, refused: Refused) -> None:
    with refused(WeightsError, "does not say which network", "expected model_type", "or architecture"):
        network(config)
