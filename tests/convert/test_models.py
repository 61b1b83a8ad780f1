from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from vconv.catalog import SYSTEMS, System
from vconv.convert import models
from vconv.convert.layouts import LAYOUTS, network
from vconv.convert.sources import Source, open_source
from vconv.errors import WeightsError
from vconv.types import OUTPUTS

CLASSIFIERS = [
    name
    for name, system in SYSTEMS.items()
    if any(slot.head == "classifier" for slot in LAYOUTS[system.config["model_type"]].slots)
]
WITHOUT_POSITIONS = [name for name, system in SYSTEMS.items() if "rope_theta" in system.config]
HEADS = {slot.head for layout in LAYOUTS.values() for slot in layout.slots} | {""}


@pytest.fixture
def classifier_source(small_system: System, classifier_folder: Path, tmp_path: Path) -> Source:
    (tmp_path / "scratch").mkdir()
    return open_source(small_system, str(classifier_folder), tmp_path / "scratch")


def named_outputs(source: Source, images: Tensor) -> dict[str, Tensor]:
    net = network(source.config, frozenset(source.entries))
    model = models.Outputs(models.load(source.folder, net), net)
    with torch.no_grad():
        return dict(zip(models.output_names(net), model(images), strict=True))


def test_every_head_has_a_class_to_load_it_with() -> None:
    assert set(models._CLASSES) == HEADS


def test_a_loaded_model_holds_the_files_weights_and_is_ready_for_inference(small_source: Source) -> None:
    net = network(small_source.config)
    model = models.load(small_source.folder, net)
    weights = safetensors.torch.load_file(small_source.folder / "model.safetensors")
    found = {net.layout.disk_key(name): value for name, value in model.named_parameters()}
    assert set(found) == set(weights)
    for name, value in found.items():
        assert torch.equal(value, weights[name]), name
        assert value.dtype == torch.float32
        assert not value.requires_grad
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_source_is_loaded_in_float32(small_source: Source, dtype: torch.dtype) -> None:
    path = small_source.folder / "model.safetensors"
    weights = {name: tensor.to(dtype) for name, tensor in safetensors.torch.load_file(path).items()}
    path.unlink()
    safetensors.torch.save_file(weights, path, metadata={"format": "pt"})
    net = network(small_source.config)
    for name, value in models.load(small_source.folder, net).named_parameters():
        assert value.dtype == torch.float32
        assert torch.equal(value, weights[net.layout.disk_key(name)].float())


@pytest.mark.parametrize("shown", [True, False])
def test_loading_leaves_the_progress_bar_as_it_was(small_source: Source, shown: bool) -> None:
    progress = transformers.utils.logging
    before = progress.is_progress_bar_enabled()
    try:
        (progress.enable_progress_bar if shown else progress.disable_progress_bar)()
        models.load(small_source.folder, network(small_source.config))
        assert progress.is_progress_bar_enabled() is shown
    finally:
        (progress.enable_progress_bar if before else progress.disable_progress_bar)()


def test_loading_draws_no_progress_bar(small_source: Source, capfd: pytest.CaptureFixture[str]) -> None:
    models.load(small_source.folder, network(small_source.config))
    assert "Loading weights" not in capfd.readouterr().err


def test_outputs_are_those_of_the_stock_model(
    small_source: Source, stock: Callable[[Path], Any], pixel_values: Tensor
) -> None:
    found = named_outputs(small_source, pixel_values)
    with torch.no_grad():
        expected = stock(small_source.folder)(pixel_values)
    registers = small_source.config.get("num_register_tokens", 0)
    tokens = expected.last_hidden_state
    assert torch.equal(found.pop("last_hidden_state"), tokens)
    assert torch.equal(found.pop("pooled"), expected.pooler_output)
    assert torch.equal(found.pop("cls"), tokens[:, 0, :])
    assert torch.equal(found.pop("patches"), tokens[:, -16:, :])
    assert torch.equal(found.pop("registers", tokens[:, :0]), tokens[:, 1 : 1 + registers, :])
    assert found == {}


@pytest.mark.parametrize("system", CLASSIFIERS, indirect=True)
def test_logits_are_those_of_the_stock_classifier(
    classifier_source: Source, classifier_folder: Path, pixel_values: Tensor
) -> None:
    model = transformers.AutoModelForImageClassification.from_pretrained(classifier_folder).eval()
    found = named_outputs(classifier_source, pixel_values)
    with torch.no_grad():
        expected = model(pixel_values).logits
        tokens = model.base_model(pixel_values).last_hidden_state
    assert expected.shape == (3, 5)
    assert torch.equal(found["logits"], expected)
    assert torch.equal(found["last_hidden_state"], tokens)
    assert torch.equal(found["cls"], tokens[:, 0])
    assert torch.equal(found["patches"], tokens[:, 1:])
    assert "pooled" not in found


def test_shapes_are_those_that_the_stock_model_makes(small_source: Source, pixel_values: Tensor) -> None:
    found = named_outputs(small_source, pixel_values)
    expected = models.output_shapes(network(small_source.config), 3, (64, 64))
    assert {name: tuple(value.shape) for name, value in found.items()} == expected


@pytest.mark.parametrize("system", CLASSIFIERS, indirect=True)
def test_shapes_are_those_that_the_stock_classifier_makes(
    classifier_source: Source, pixel_values: Tensor
) -> None:
    found = named_outputs(classifier_source, pixel_values)
    net = network(classifier_source.config, frozenset(classifier_source.entries))
    expected = models.output_shapes(net, 3, (64, 64))
    assert {name: tuple(value.shape) for name, value in found.items()} == expected


@pytest.mark.parametrize("system", WITHOUT_POSITIONS, indirect=True)
def test_shapes_follow_an_image_that_is_not_square(small_source: Source) -> None:
    images = torch.zeros(2, 3, 32, 80)
    net = network(small_source.config)
    found = named_outputs(small_source, images)
    expected = models.output_shapes(net, 2, (32, 80))
    assert {name: tuple(value.shape) for name, value in found.items()} == expected


def test_names_come_in_one_order(system: System) -> None:
    for keys in (None, frozenset({"classifier.weight"})):
        names = models.output_names(network(system.config, keys))
        assert list(names) == [name for name in OUTPUTS if name in names]
        assert ("logits" in names) is not ("pooled" in names)


def test_a_model_without_weights_has_every_shape_and_no_data(small_source: Source) -> None:
    net, mode = network(small_source.config), FakeTensorMode()
    (small_source.folder / "model.safetensors").unlink()
    model = models.without_weights(small_source.folder, net, mode)
    shapes = {key: tensor.shape for key, tensor in net.tensors().items()}
    found = dict(model.named_parameters())
    assert {net.layout.disk_key(name): tuple(value.shape) for name, value in found.items()} == shapes
    assert not any(module.training for module in model.modules())
    for value in found.values():
        assert isinstance(value, FakeTensor)
        assert value.fake_mode is mode
        assert (value.dtype, value.device.type, value.requires_grad) == (torch.float32, "cpu", False)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_a_model_without_weights_is_float32_whatever_the_configuration_says(
    small_source: Source, dtype: str, key: str
) -> None:
    config = transformers.AutoConfig.from_pretrained(small_source.folder).to_dict()
    config.pop("dtype", None)
    (small_source.folder / "config.json").write_text(json.dumps({**config, key: dtype}))
    model = models.without_weights(small_source.folder, network(small_source.config), FakeTensorMode())
    assert {value.dtype for value in model.parameters()} == {torch.float32}


def test_quiet_holds_back_warnings_and_gives_the_levels_back(caplog: pytest.LogCaptureFixture) -> None:
    names = ("vconv.test.one", "vconv.test.two")
    loggers = [logging.getLogger(name) for name in names]
    loggers[0].setLevel(logging.DEBUG)
    with caplog.at_level(logging.DEBUG), pytest.raises(RuntimeError, match="inside"), models.quiet(*names):
        for logger in loggers:
            logger.warning("a warning")
            logger.error("an error")
        raise RuntimeError("inside")
    assert caplog.messages == ["an error", "an error"]
    assert [logger.level for logger in loggers] == [logging.DEBUG, logging.NOTSET]


def test_a_tensor_that_stock_loading_would_make_up_is_an_error(small_source: Source, tmp_path: Path) -> None:
    tensors = safetensors.torch.load_file(small_source.folder / "model.safetensors")
    lost = next(name for name in sorted(tensors) if "norm" in name)
    tensors["stray"] = tensors.pop(lost)
    folder = tmp_path / "broken"
    folder.mkdir()
    safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).write_bytes((small_source.folder / name).read_bytes())
    net = network(small_source.config)
    with pytest.raises(WeightsError, match="transformers does not load all of model.safetensors"):
        models.load(folder, net)


def test_a_configuration_that_makes_no_model_is_an_error_in_one_line(
    small_source: Source, tmp_path: Path
) -> None:
    config = {**small_source.config, "hidden_act": "nonsense"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").symlink_to(small_source.folder / "model.safetensors")
    with pytest.raises(WeightsError, match="transformers cannot build the model") as caught:
        models.load(tmp_path, network(config))
    assert "\n" not in str(caught.value)
