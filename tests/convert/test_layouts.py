from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers

from vconv.catalog import SYSTEMS, System
from vconv.convert.layouts import LAYOUTS, network
from vconv.errors import UnknownNameError, WeightsError

Refused = Callable[..., AbstractContextManager[None]]

CLASSIFIERS = [
    name
    for name, system in SYSTEMS.items()
    if any(slot.head == "classifier" for slot in LAYOUTS[system.config["model_type"]].slots)
]
FLAGS = [
    (name, flag)
    for name, system in SYSTEMS.items()
    for flag in transformers.AutoConfig.for_model(system.config["model_type"]).to_dict()
    if flag.endswith("_bias")
]
"""Every flag of transformers' own configurations that says whether a bias exists."""


def empty_model(config: Any, factory: Any = transformers.AutoModel) -> Any:
    with torch.device("meta"):
        return factory.from_config(transformers.AutoConfig.for_model(**config))


def saved(model: Any, folder: Path) -> dict[str, tuple[int, ...]]:
    """Let transformers write a model, and read the keys and shapes back."""
    model.save_pretrained(folder)
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}


def declared(config: Any, keys: frozenset[str] | None = None) -> dict[str, tuple[int, ...]]:
    net = network(config, keys)
    return {net.stored_key(key): tensor.shape for key, tensor in net.tensors().items()}


def test_every_layout_is_listed_under_its_own_family() -> None:
    assert {family: layout.family for family, layout in LAYOUTS.items()} == {key: key for key in LAYOUTS}


def test_every_system_has_a_layout(system: System) -> None:
    assert network(system.config).layout is LAYOUTS[system.config["model_type"]]


def test_a_layout_has_the_keys_and_shapes_that_transformers_saves(
    small_system: System, tmp_path: Path
) -> None:
    model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**small_system.config))
    assert declared(small_system.config) == saved(model, tmp_path)


@pytest.mark.parametrize("system", CLASSIFIERS, indirect=True)
def test_a_classifier_has_the_keys_and_shapes_that_transformers_saves(
    small_system: System, classifier_folder: Path
) -> None:
    weights = safetensors.torch.load_file(classifier_folder / "model.safetensors")
    config = {**small_system.config, "num_labels": 5}
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    assert declared(config, frozenset(weights)) == shapes
    assert network(config, frozenset(weights)).head == "classifier"


@pytest.mark.parametrize("system", CLASSIFIERS, indirect=True)
def test_labels_are_counted_from_the_configuration_that_transformers_saves(
    classifier_folder: Path,
) -> None:
    config = transformers.AutoConfig.from_pretrained(classifier_folder).to_dict()
    assert network(config, frozenset({"classifier.weight"})).tensors()["classifier.bias"].shape == (5,)


def test_the_full_sized_layout_is_that_of_the_stock_model(system: System) -> None:
    model = empty_model(system.config)
    names = {model_name: tuple(tensor.shape) for model_name, tensor in model.named_parameters()}
    disk_key = network(system.config).layout.disk_key
    assert {disk_key(name): shape for name, shape in names.items()} == declared(system.config)
    assert len({disk_key(name) for name in names}) == len(names)


def test_every_name_in_memory_maps_to_its_key_on_disk(small_system: System) -> None:
    model = empty_model(small_system.config)
    net = network(small_system.config)
    assert sorted(map(net.layout.disk_key, dict(model.named_parameters()))) == sorted(net.tensors())


def test_a_key_on_disk_maps_to_itself(small_system: System) -> None:
    net = network(small_system.config)
    assert [net.layout.disk_key(key) for key in net.tensors()] == list(net.tensors())


@pytest.mark.parametrize("system", CLASSIFIERS, indirect=True)
def test_every_name_in_a_classifiers_memory_maps_to_its_key_on_disk(small_system: System) -> None:
    model = empty_model(small_system.config, transformers.AutoModelForImageClassification)
    keys = frozenset({"classifier.weight"})
    mapped = map(network(small_system.config).layout.disk_key, dict(model.named_parameters()))
    assert sorted(mapped) == sorted(declared(small_system.config, keys))


@pytest.mark.parametrize(("system", "flag"), FLAGS, indirect=["system"])
@pytest.mark.parametrize("value", [True, False])
def test_every_flag_adds_and_removes_what_it_does_in_transformers(
    small_system: System, flag: str, value: bool, tmp_path: Path
) -> None:
    config = {**small_system.config, flag: value}
    model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**config))
    assert declared(config) == saved(model, tmp_path)


def test_every_bias_flag_is_that_of_the_biases_slot(system: System) -> None:
    layout = network(system.config).layout
    for ending, flag in layout.biases.items():
        assert {slot.when for slot in layout.slots if slot.key.endswith(ending)} == {flag}


def test_counts_are_those_of_the_stock_model(small_system: System) -> None:
    net, model = network(small_system.config), empty_model(small_system.config)
    assert net.blocks == model.config.num_hidden_layers
    assert net.registers == getattr(model.config, "num_register_tokens", 0)
    assert net.head_dim * model.config.num_attention_heads == model.config.hidden_size
    blocks = {tensor.block for tensor in net.tensors().values()}
    assert blocks == {None, *range(net.blocks)}


@pytest.mark.parametrize("keys", [None, frozenset[str](), frozenset({"pooler.dense.weight"})])
def test_without_a_classifier_a_network_has_its_default_head(
    small_system: System, keys: frozenset[str] | None
) -> None:
    net = network(small_system.config, keys)
    assert net.head != "classifier"
    assert net.prefix == ""
    assert net == network(small_system.config)


def test_an_unknown_model_type_names_the_nearest(system: System, refused: Refused) -> None:
    family = system.config["model_type"]
    with refused(UnknownNameError, "unknown model_type", repr(family + "x"), f"one of {family}"):
        network({**system.config, "model_type": family + "x"})


def test_a_configuration_without_model_type_is_refused(refused: Refused) -> None:
    with refused(UnknownNameError, "unknown model_type", *LAYOUTS):
        network({})


def test_a_gated_mlp_is_refused(system: System, refused: Refused) -> None:
    with refused(WeightsError, "gated MLP", "use_gated_mlp = true", "expected use_gated_mlp = false"):
        network({**system.config, "use_gated_mlp": True})


@pytest.mark.parametrize(
    "key",
    [
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_channels",
        "patch_size",
        "image_size",
    ],
)
def test_a_configuration_that_lacks_a_number_is_refused(system: System, key: str, refused: Refused) -> None:
    config = {name: value for name, value in system.config.items() if name != key}
    with refused(WeightsError, "config.json is incomplete", f"no {key}"):
        network(config)


@pytest.mark.parametrize("value", [None, [224, 224], "224", 0])
def test_a_number_of_another_type_is_refused(system: System, value: object, refused: Refused) -> None:
    with refused(WeightsError, "config.json"):
        network({**system.config, "patch_size": value})
