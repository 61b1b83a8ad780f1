from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers
from examples import EXAMPLES
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from vconv.catalog.systems import System
from vconv.convert.architectures.outputs import OUTPUTS, output_names, output_shapes
from vconv.convert.libraries import models
from vconv.convert.libraries.readers import network
from vconv.convert.sources.base import Source
from vconv.convert.sources.table import Request, open_source
from vconv.errors import WeightsError

CLASSIFIERS = [
    name for name, system in EXAMPLES.items() if "classifier" in network(system.config).layout.heads
]
ANY_SIZE = ["dinov3-vits16", "vit_small_patch16_dinov3.lvd1689m", "dinov2-large"]
TRANSFORMERS = [name for name, system in EXAMPLES.items() if system.library == "transformers"]
with_classifier = pytest.mark.parametrize("system", CLASSIFIERS, indirect=True)
by_transformers = pytest.mark.parametrize("system", TRANSFORMERS, indirect=True)

Named = Callable[[Any, Tensor], dict[str, Tensor]]


@pytest.fixture
def classifier_source(small_system: System, classifier_folder: Path, tmp_path: Path) -> Source:
    (tmp_path / "scratch").mkdir()
    return open_source(Request(small_system, str(classifier_folder)), tmp_path / "scratch")


def named_outputs(source: Source, images: Tensor) -> dict[str, Tensor]:
    net = source.network
    model = models.Outputs(models.load(source.folder, net), net)
    with torch.no_grad():
        return dict(zip(output_names(net), model(images), strict=True))


def test_a_loaded_model_holds_the_files_weights_and_is_ready_for_inference(small_source: Source) -> None:
    net = small_source.network
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
    net = small_source.network
    for name, value in models.load(small_source.folder, net).named_parameters():
        assert value.dtype == torch.float32
        assert torch.equal(value, weights[net.layout.disk_key(name)].float())


@by_transformers
@pytest.mark.parametrize("shown", [True, False])
def test_loading_leaves_the_progress_bar_as_it_was(small_source: Source, shown: bool) -> None:
    progress = transformers.utils.logging
    before = progress.is_progress_bar_enabled()
    try:
        (progress.enable_progress_bar if shown else progress.disable_progress_bar)()
        models.load(small_source.folder, small_source.network)
        assert progress.is_progress_bar_enabled() is shown
    finally:
        (progress.enable_progress_bar if before else progress.disable_progress_bar)()


def test_loading_draws_no_progress_bar(small_source: Source, capfd: pytest.CaptureFixture[str]) -> None:
    models.load(small_source.folder, small_source.network)
    assert capfd.readouterr() == ("", "")


def test_outputs_are_those_of_the_stock_model(
    small_source: Source, stock: Callable[[Path], Any], named: Named, pixel_values: Tensor
) -> None:
    found = named_outputs(small_source, pixel_values)
    expected = named(stock(small_source.folder), pixel_values)
    assert list(found) == list(expected)
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []
    assert found["patches"].shape[1] == 16


@with_classifier
def test_logits_are_those_of_the_stock_classifier(
    classifier_source: Source, classifier_folder: Path, stock: Callable[[Path], Any], pixel_values: Tensor
) -> None:
    model = stock(classifier_folder)
    found = named_outputs(classifier_source, pixel_values)
    with torch.no_grad():
        result = model(pixel_values)
        if classifier_source.library.name == "timm":
            logits, tokens = result, model.forward_features(pixel_values)
        else:
            logits, tokens = result.logits, model.base_model(pixel_values).last_hidden_state
    first = 1 + classifier_source.network.registers
    assert logits.shape == (3, 5)
    assert torch.equal(found["logits"], logits)
    assert torch.equal(found["last_hidden_state"], tokens)
    assert torch.equal(found["cls"], tokens[:, 0])
    assert torch.equal(found["patches"], tokens[:, first:])


@with_classifier
def test_a_classifier_has_a_pooled_output_if_its_library_returns_one(classifier_source: Source) -> None:
    names = output_names(classifier_source.network)
    assert ("pooled" in names) is (classifier_source.network.layout.family != "vit")
    assert "logits" in names


def test_shapes_are_those_of_the_stock_model(
    small_source: Source, pixel_values: Tensor, size: tuple[int, int]
) -> None:
    found = named_outputs(small_source, pixel_values)
    expected = output_shapes(small_source.network, 3, size)
    assert {name: tuple(value.shape) for name, value in found.items()} == expected


@with_classifier
def test_shapes_are_those_of_the_stock_classifier(
    classifier_source: Source, pixel_values: Tensor, size: tuple[int, int]
) -> None:
    found = named_outputs(classifier_source, pixel_values)
    expected = output_shapes(classifier_source.network, 3, size)
    assert {name: tuple(value.shape) for name, value in found.items()} == expected


@pytest.mark.parametrize("system", ANY_SIZE, indirect=True)
def test_shapes_follow_an_image_that_is_not_square(small_source: Source) -> None:
    patch = small_source.network.numbers.patch
    images = torch.zeros(2, 3, 2 * patch, 5 * patch)
    found = named_outputs(small_source, images)
    expected = output_shapes(small_source.network, 2, (2 * patch, 5 * patch))
    assert {name: tuple(value.shape) for name, value in found.items()} == expected


def test_output_names_are_always_in_the_same_order(system: System) -> None:
    for keys in ((), ("classifier.weight", "head.weight")):
        net = network(system.config, keys)
        names = output_names(net)
        assert list(names) == [name for name in OUTPUTS if name in names]
        assert ("logits" in names) is (net.head == "classifier")
        assert "logits" in names or "pooled" in names


def test_a_model_without_weights_has_every_shape_and_no_data(small_source: Source) -> None:
    net, mode = small_source.network, FakeTensorMode()
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


@by_transformers
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_a_model_without_weights_is_float32_whatever_the_configuration_says(
    small_source: Source, dtype: str, key: str
) -> None:
    config = transformers.AutoConfig.from_pretrained(small_source.folder).to_dict()
    config.pop("dtype", None)
    (small_source.folder / "config.json").write_text(json.dumps({**config, key: dtype}))
    model = models.without_weights(small_source.folder, small_source.network, FakeTensorMode())
    assert {value.dtype for value in model.parameters()} == {torch.float32}


def test_a_tensor_that_stock_loading_would_initialise_itself_is_an_error(
    small_source: Source, tmp_path: Path
) -> None:
    tensors = safetensors.torch.load_file(small_source.folder / "model.safetensors")
    lost = next(name for name in sorted(tensors) if "norm" in name)
    tensors["stray"] = tensors.pop(lost)
    folder = tmp_path / "broken"
    folder.mkdir()
    safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    for name in small_source.library.files:
        (folder / name).write_bytes((small_source.folder / name).read_bytes())
    said = {
        "transformers": "transformers does not load all of the weights",
        "timm": "timm cannot make the model",
    }
    with pytest.raises(WeightsError, match=said[small_source.library.name]) as caught:
        models.load(folder, small_source.network)
    assert "\n" not in str(caught.value)
    assert "stray" in str(caught.value) or lost in str(caught.value)


def test_a_configuration_of_an_impossible_model_is_a_one_line_error(
    small_source: Source, tmp_path: Path
) -> None:
    wrong = {"transformers": {"hidden_act": "nonsense"}, "timm": {"model_args": {"nonsense": 1}}}
    library = small_source.library.name
    (tmp_path / "config.json").write_text(json.dumps({**small_source.config, **wrong[library]}))
    (tmp_path / "model.safetensors").symlink_to(small_source.folder / "model.safetensors")
    for make in (models.load, partial(models.without_weights, mode=FakeTensorMode())):
        with pytest.raises(WeightsError, match=f"{library} cannot make the model") as caught:
            make(tmp_path, small_source.network)
        assert "\n" not in str(caught.value)


class Remembering(nn.Module):
    """A module that keeps what it computed, in a collection and as an attribute, as timm's LeViT does."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        self.last = self.kept["x"] = x
        return x


def test_a_run_without_data_leaves_nothing_in_the_attributes_of_a_module() -> None:
    model = Remembering()
    model(torch.ones(2))
    first = model.last
    fresh = Remembering()
    for one in (model, fresh):
        with models.caches_cleared(one), FakeTensorMode():
            one(torch.empty(2))
    assert model.last is first and model.kept["x"] is first
    assert fresh.kept == {} and not hasattr(fresh, "last")
