from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from examples import EXAMPLES
from timm.data import config as data_config
from torch import Tensor, nn

from vconv.catalog.systems import System
from vconv.convert.libraries import models, timm_described
from vconv.convert.libraries.readers import network
from vconv.convert.libraries.timm_models import LIBRARY
from vconv.convert.sources.base import Source
from vconv.errors import WeightsError

Distance = Callable[[Any, Any], float]
Named = Callable[[Any, Tensor], dict[str, Tensor]]
FUSED = "scaled_dot_product"

TIMM = [name for name, system in EXAMPLES.items() if system.library == "timm"]
pytestmark = pytest.mark.parametrize("system", TIMM, indirect=True)


def written(folder: Path, config: Any, tensors: dict[str, Tensor]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    return folder


def tensors_of(source: Source) -> dict[str, Tensor]:
    return safetensors.torch.load_file(source.folder / "model.safetensors")


def test_a_folder_is_loaded_as_a_stock_user_does(small_source: Source) -> None:
    model = LIBRARY.load(small_source.folder, small_source.network)
    stored, held = tensors_of(small_source), model.state_dict()
    assert list(held) and set(held) == set(stored)
    assert [name for name in stored if not torch.equal(held[name], stored[name])] == []
    stock = timm.create_model(f"local-dir:{small_source.folder}", pretrained=True)
    assert type(model) is type(stock)


@pytest.mark.parametrize("change", ["a lost tensor", "a stray tensor", "another shape"])
def test_weights_that_do_not_fit_are_an_error(small_source: Source, tmp_path: Path, change: str) -> None:
    tensors = tensors_of(small_source)
    if change == "a stray tensor":
        tensors["stray"] = torch.ones(1)
    else:
        lost = tensors.pop("blocks.1.norm2.weight")
        if change == "another shape":
            tensors["blocks.1.norm2.weight"] = torch.cat([lost, lost])
    folder = written(tmp_path / "given", dict(small_source.config), tensors)
    with pytest.raises(WeightsError, match="timm cannot make the model"):
        models.load(folder, small_source.network)


def test_building_needs_no_weights_and_has_no_data(small_source: Source) -> None:
    (small_source.folder / "model.safetensors").unlink()
    model = LIBRARY.build(small_source.folder, small_source.network)
    assert {value.device.type for value in model.parameters()} == {"meta"}
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert shapes == {key: tensor.shape for key, tensor in small_source.network.tensors().items()}


def test_loading_prints_nothing(
    small_source: Source, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    LIBRARY.load(small_source.folder, small_source.network)
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []


def test_plain_attention_computes_the_same_with_plain_operators(
    small_source: Source,
    stock: Callable[[Path], Any],
    pixel_values: Tensor,
    distance: Distance,
    executed: Callable[[nn.Module, Tensor], Counter[str]],
) -> None:
    model = stock(small_source.folder)
    before = executed(model, pixel_values)
    with torch.no_grad():
        expected = model.forward_features(pixel_values)
        with LIBRARY.plain_attention(model, small_source.network):
            found = model.forward_features(pixel_values)
            inside = executed(model, pixel_values)
        after = model.forward_features(pixel_values)
    assert any(FUSED in name for name in before)
    assert [name for name in inside if FUSED in name] == []
    assert inside["_softmax"] == small_source.network.blocks
    assert 0 < distance(found, expected) < 1e-5
    assert torch.equal(after, expected)


def test_a_models_attention_is_restored_after_an_error(
    small_source: Source, stock: Callable[[Path], Any]
) -> None:
    model = stock(small_source.folder)
    model.blocks[1].attn.fused_attn = False
    before = [block.attn.fused_attn for block in model.blocks]
    with pytest.raises(RuntimeError, match="inside"), LIBRARY.plain_attention(model, small_source.network):
        assert not any(block.attn.fused_attn for block in model.blocks)
        raise RuntimeError("inside")
    assert [block.attn.fused_attn for block in model.blocks] == before


def test_exact_gelus_are_those_of_the_stock_model(small_source: Source, stock: Callable[[Path], Any]) -> None:
    gelus = LIBRARY.exact_gelus()
    found = [module for module in stock(small_source.folder).modules() if isinstance(module, gelus)]
    assert len(found) == small_source.network.blocks


def test_the_image_size_is_that_of_the_published_preprocessing(system: System) -> None:
    _, height, width = system.config["pretrained_cfg"]["input_size"]
    assert LIBRARY.image_size(system.config, {}) == (height, width)


def test_the_image_size_of_a_shrunk_system_is_its_own(small_system: System, size: tuple[int, int]) -> None:
    assert LIBRARY.image_size(small_system.config, {}) == size


def test_preprocessing_is_that_of_the_loaded_stock_model(
    small_source: Source, stock: Callable[[Path], Any]
) -> None:
    resolve: Any = data_config.resolve_model_data_config
    assert timm_described.preprocessing(small_source.config) == resolve(stock(small_source.folder))


def test_flags_are_switched_in_a_copy(small_system: System) -> None:
    before = json.dumps(dict(small_system.config))
    found = LIBRARY.switched(small_system.config, {"qkv_bias": False, "embed_dim": 192})
    assert found["model_args"] == {**small_system.config["model_args"], "qkv_bias": False, "embed_dim": 192}
    assert {key: value for key, value in found.items() if key != "model_args"} == {
        key: value for key, value in small_system.config.items() if key != "model_args"
    }
    assert json.dumps(dict(small_system.config)) == before


def test_flags_are_switched_in_a_configuration_without_model_arguments(system: System) -> None:
    assert "model_args" not in system.config
    assert LIBRARY.switched(system.config, {"qkv_bias": False})["model_args"] == {"qkv_bias": False}


@pytest.mark.parametrize("pool", ["avg", "cls"])
def test_another_pooling_leaves_every_token_and_every_tensor_as_it_was(
    small_source: Source,
    stock: Callable[[Path], Any],
    named: Named,
    pixel_values: Tensor,
    tmp_path: Path,
    pool: str,
) -> None:
    assert LIBRARY.pooled_by is not None
    config = LIBRARY.pooled_by(small_source.config, pool)
    folder = written(tmp_path / "given", config, tensors_of(small_source))
    expected = named(stock(small_source.folder), pixel_values)
    found = named(stock(folder), pixel_values)
    assert torch.equal(found["last_hidden_state"], expected["last_hidden_state"])
    by_hand = {"avg": expected["patches"].mean(dim=1), "cls": expected["cls"]}
    assert torch.allclose(found["pooled"], by_hand[pool], rtol=0, atol=1e-6)
    other = by_hand["cls" if pool == "avg" else "avg"]
    assert not torch.allclose(found["pooled"], other, rtol=0, atol=1e-3)
    assert network(config).tensors() == small_source.network.tensors()
    assert network(config).numbers.pooling == pool
    assert config["global_pool"] == config["model_args"]["global_pool"]


@pytest.mark.parametrize("pool", ["avg", "cls"])
def test_a_norm_after_pooling_stays_there(small_system: System, pool: str) -> None:
    flag = {"timm dinov3": "use_fc_norm", "timm dinov2": "fc_norm"}[
        network(small_system.config).layout.family
    ]
    config = LIBRARY.switched(small_system.config, {flag: True, "global_pool": "avg"})
    assert LIBRARY.pooled_by is not None
    keys = network(LIBRARY.pooled_by(config, pool)).tensors()
    assert keys == network(config).tensors()
    assert "fc_norm.weight" in keys
    assert "norm.weight" not in keys


def test_a_classifiers_logits_are_those_of_the_stock_model(
    small_system: System, classifier_folder: Path, stock: Callable[[Path], Any], pixel_values: Tensor
) -> None:
    tensors = safetensors.torch.load_file(classifier_folder / "model.safetensors")
    net = network(json.loads((classifier_folder / "config.json").read_text()), tensors)
    model = stock(classifier_folder)
    with torch.no_grad():
        found, logits = LIBRARY.run(model, net, pixel_values), model(pixel_values)
        pooled = model.forward_head(model.forward_features(pixel_values), pre_logits=True)
    assert logits.shape == (3, 5)
    assert torch.equal(found["logits"], logits)
    assert torch.equal(found["pooled"], pooled)
    by_hand = pooled @ tensors["head.weight"].T + tensors["head.bias"]
    assert torch.allclose(logits, by_hand, rtol=0, atol=1e-4)


def test_a_head_that_timm_would_discard_is_an_error(classifier_folder: Path, tmp_path: Path) -> None:
    """timm initialises a new head if ``pretrained_cfg`` names another number of classes."""
    config = json.loads((classifier_folder / "config.json").read_text())
    tensors = safetensors.torch.load_file(classifier_folder / "model.safetensors")
    config |= {"num_classes": 7, "model_args": {**config["model_args"], "num_classes": 5}}
    folder = written(tmp_path / "given", config, tensors)
    with pytest.raises(WeightsError, match="does not load all of the weights"):
        models.load(folder, network(config, tensors))
