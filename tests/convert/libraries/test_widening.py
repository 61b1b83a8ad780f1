"""Weights that stay narrow, or in their file, and are widened only while they are used."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from vconv.convert.architectures.outputs import output_names
from vconv.convert.files import shards
from vconv.convert.libraries import corrections, models, widening
from vconv.convert.sources.base import Source
from vconv.errors import UnavailableError, WeightsError
from vconv.precisions import PRECISIONS
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.torch_model import TorchSession
from vconv.types import WEIGHTS_FILE, Array


@pytest.fixture
def images(size: tuple[int, int]) -> Array:
    return np.random.default_rng(2).standard_normal((3, 3, *size), dtype=np.float32)


@pytest.fixture
def narrow(small_source: Source, monkeypatch: pytest.MonkeyPatch) -> Source:
    """A source in bfloat16, which is too large to be loaded whole."""
    path = small_source.folder / WEIGHTS_FILE
    tensors = {name: value.bfloat16() for name, value in safetensors.torch.load_file(path).items()}
    path.unlink()
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    monkeypatch.setattr(widening, "GREATEST_WIDENED", 0)
    return small_source


def run(model: nn.Module, source: Source, images: Array) -> dict[str, torch.Tensor]:
    with torch.inference_mode():
        found = models.Outputs(model, source.network)(torch.from_numpy(images))
    return dict(zip(output_names(source.network), found, strict=True))


def loaded_by_the_library(source: Source, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    with monkeypatch.context() as patched:
        patched.setattr(widening, "GREATEST_WIDENED", 2**40)
        model = models.load(source.folder, source.network)
    assert not widening.is_narrow(model)
    return model


def test_a_mapped_model_computes_the_bits_of_the_one_that_the_library_loads(
    narrow: Source, images: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models.load(narrow.folder, narrow.network)
    assert widening.is_narrow(model)
    stock = loaded_by_the_library(narrow, monkeypatch)
    expected = run(stock, narrow, images)
    for _ in range(2):
        for name, value in run(model, narrow, images).items():
            assert torch.equal(value, expected[name]), name
    for name, buffer in stock.named_buffers():
        assert torch.equal(model.get_buffer(name), buffer), name


def test_shards_are_mapped_without_being_merged(
    narrow: Source, images: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run(loaded_by_the_library(narrow, monkeypatch), narrow, images)
    tensors = safetensors.torch.load_file(narrow.folder / WEIGHTS_FILE)
    names = sorted(tensors)
    halves = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for file, held in halves.items():
        safetensors.torch.save_file({name: tensors[name] for name in held}, narrow.folder / file)
    index = {"weight_map": {name: file for file, held in halves.items() for name in held}}
    (narrow.folder / shards.SAFETENSORS_INDEX).write_text(json.dumps(index))
    (narrow.folder / WEIGHTS_FILE).unlink()
    found = run(models.load(narrow.folder, narrow.network), narrow, images)
    for name, value in found.items():
        assert torch.equal(value, expected[name]), name


def test_float64_is_widened_from_the_narrow_weights(
    narrow: Source, images: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = run_wide(loaded_by_the_library(narrow, monkeypatch).double(), narrow, images)
    model = models.load(narrow.folder, narrow.network)
    with widening.in_double(model):
        actual = run_wide(model, narrow, images)
    for name, value in exact.items():
        assert float((actual[name] - value).norm() / value.norm()) < 1e-12, name
    assert {layer.weight.dtype for layer in linear_layers(model)} == {torch.bfloat16}


@pytest.mark.parametrize("change", ["a missing tensor", "one too many", "another shape"])
def test_weights_that_do_not_fit_are_refused(narrow: Source, change: str) -> None:
    path = narrow.folder / WEIGHTS_FILE
    tensors = safetensors.torch.load_file(path)
    name = sorted(tensors)[0]
    if change == "a missing tensor":
        del tensors[name]
    elif change == "one too many":
        tensors["stray"] = tensors[name].clone()
    else:
        tensors[name] = torch.zeros(7, dtype=torch.bfloat16)
    path.unlink()
    safetensors.torch.save_file(tensors, path)
    with pytest.raises(WeightsError, match="does not take these weights"):
        models.load(narrow.folder, narrow.network)


def test_a_session_in_another_precision_says_why_it_cannot_run(narrow: Source, size: tuple[int, int]) -> None:
    model = models.load(narrow.folder, narrow.network)
    with pytest.raises(UnavailableError, match="widened to float32 while they are used"):
        TorchSession(model, narrow.network, find_device("cpu"), (), narrow.folder, size, PRECISIONS["bf16"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_model_that_fits_is_loaded_by_its_library(small_source: Source, dtype: torch.dtype) -> None:
    path = small_source.folder / WEIGHTS_FILE
    tensors = {name: value.to(dtype) for name, value in safetensors.torch.load_file(path).items()}
    path.unlink()
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    assert not widening.is_narrow(models.load(small_source.folder, small_source.network))


@pytest.fixture
def model(small_source: Source) -> nn.Module:
    """The reference of a small system."""
    found = models.load(small_source.folder, small_source.network)
    corrections.correct(found, small_source.network.layout.family, small_source.config)
    return found


def run_wide(model: nn.Module, source: Source, images: Array) -> dict[str, torch.Tensor]:
    with torch.inference_mode():
        found = models.Outputs(model, source.network)(torch.from_numpy(images).double())
    return dict(zip(output_names(source.network), found, strict=True))


def linear_layers(model: nn.Module) -> list[nn.Linear]:
    return [module for module in model.modules() if isinstance(module, nn.Linear)]


def test_a_model_that_is_widened_layer_by_layer_gives_what_one_in_double_gives(
    model: nn.Module, small_source: Source, images: Array
) -> None:
    expected = run_wide(copy.deepcopy(model).double(), small_source, images)
    with widening.in_double(model):
        actual = run_wide(model, small_source, images)
    for name, value in expected.items():
        assert actual[name].dtype == value.dtype == torch.float64
        assert float((actual[name] - value).norm() / value.norm()) < 1e-12, name


def test_linear_layers_are_as_they_were_after_a_pass_in_double(
    model: nn.Module, small_source: Source, images: Array
) -> None:
    before = {name: value.clone() for name, value in model.named_parameters()}
    with widening.in_double(model):
        run_wide(model, small_source, images)
    assert linear_layers(model)
    for module in linear_layers(model):
        for parameter in module.parameters(recurse=False):
            assert parameter.dtype is torch.float32
        assert not module._forward_hooks and not module._forward_pre_hooks
    for name, value in model.named_parameters():
        assert torch.equal(value.float(), before[name]), name


def test_no_more_than_one_linear_layer_is_wide_at_a_time(
    model: nn.Module, small_source: Source, images: Array
) -> None:
    wide: list[int] = []

    def count(*_: object) -> None:
        layers = linear_layers(model)
        wide.append(sum(layer.weight.dtype is torch.float64 for layer in layers))

    with widening.in_double(model):
        for module in linear_layers(model):
            module.register_forward_pre_hook(count)
        count()
        run_wide(model, small_source, images)
        count()
    assert (wide[0], wide[-1]) == (0, 0)
    assert set(wide[1:-1]) == {1}


@pytest.mark.usefixtures("small_source")
def test_hooks_are_gone_after_an_error_in_double(model: nn.Module) -> None:
    with pytest.raises(ZeroDivisionError), widening.in_double(model):
        raise ZeroDivisionError
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in linear_layers(model))


def test_a_buffer_that_a_run_has_replaced_is_widened() -> None:
    class Caching(nn.Module):
        """Keeps what it computes in a buffer, as a ConViT keeps its distances."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("kept", torch.zeros(1), persistent=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(self.kept) != len(x):
                self.kept = torch.arange(len(x)).to(x)
            return x * self.kept.expand(2, -1)

    model, ones = Caching(), torch.ones(3)
    with torch.inference_mode():
        expected = model(ones)
    with widening.in_double(model), torch.inference_mode():
        found = model(ones.double())
    assert (model.kept.dtype, found.dtype) == (torch.float64, torch.float64)
    assert torch.equal(found.float(), expected)
    assert not model.state_dict()
