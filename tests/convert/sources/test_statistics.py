"""Statistics of synthetic BatchNorms: they fit what the network gives them, so that they do normalise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from vconv.convert.files import safetensors_file
from vconv.convert.libraries import models
from vconv.convert.libraries.module_kinds import ModuleKind, kind_of
from vconv.convert.libraries.readers import network
from vconv.convert.libraries.tape import Recorder, Tape
from vconv.convert.sources import module_recipe
from vconv.convert.sources.recipes.table import LATEST
from vconv.convert.sources.statistics import mean_squares

_DRAWN = set(module_recipe.RULES) - {ModuleKind.WEIGHT}


def estimated(model: nn.Module, images: Tensor) -> dict[str, float]:
    """Estimate the mean squares of a small model, which is run with data."""
    kinds = {name: kind_of(model.get_submodule(path), own) for name, path, own in named(model)}
    rules = {name: module_recipe.RULES[kind] for name, kind in kinds.items() if kind in _DRAWN}
    recorder = Recorder()
    with torch.no_grad(), recorder:
        model(images)
    state = model.state_dict(keep_vars=True)
    return mean_squares(Tape(tuple(state.items()), images, tuple(recorder.steps)), rules)


def named(model: nn.Module) -> list[tuple[str, str, str]]:
    return [(name, *name.rpartition(".")[::2]) for name in model.state_dict()]


class Net(nn.Module):
    """A convolution, a step, and a BatchNorm."""

    def __init__(self, step: Any) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 1, bias=False), nn.Conv2d(4, 4, 1, bias=False)
        self.gamma = nn.Parameter(torch.ones(4, 1, 1))
        self.query = nn.Linear(4, 4, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.step = step

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.norm(self.step(self, self.first(images)))
        return result


def attention(net: Net, x: Tensor) -> Tensor:
    tokens = x.flatten(2).transpose(1, 2)
    weights = torch.softmax(net.query(tokens) @ tokens.transpose(1, 2), -1)
    return (weights @ tokens).transpose(1, 2).reshape(x.shape)


STEPS = {
    "nothing": (lambda net, x: x, 1.0),
    "a rectifier": (lambda net, x: functional.relu(x), 0.5),
    "a rectifier in place": (lambda net, x: functional.relu_(x), 0.5),
    "a GELU": (lambda net, x: functional.gelu(x), 0.5),
    "a branch": (lambda net, x: x + net.second(x), 2.0),
    "two branches": (lambda net, x: x + net.second(x) + net.second(functional.relu(x)), 2.0),
    "a branch with LayerScale": (lambda net, x: x + net.gamma * net.second(x), 1.0),
    "a quotient": (lambda net, x: x / 4, 1 / 16),
    "a root": (lambda net, x: x * x.square().mean().rsqrt() * 2, 4.0),
    "a norm by hand": (
        lambda net, x: 8 * (x - x.mean(1, keepdim=True)) * x.var(1, keepdim=True).rsqrt(),
        64.0,
    ),
    "unit vectors": (lambda net, x: functional.normalize(x.flatten(1)).reshape(x.shape), 1 / 256),
    "a sum over channels": (lambda net, x: x + x.sum(1, keepdim=True), 4.0),
    "a mean of the places": (lambda net, x: x.mean((2, 3), keepdim=True) * 2, 4.0),
    "a norm": (lambda net, x: 8 * functional.layer_norm(x, x.shape[1:]), 64.0),
    "concatenated": (lambda net, x: torch.cat([3 * x, x], 1)[:, 2:6], 4.0),
    "a max pooling of what is rectified": (lambda net, x: functional.max_pool2d(x.relu(), 3), 1.0),
    "attention": (attention, 1.0),
    "a gate": (lambda net, x: x * torch.sigmoid(net.second(x)), 0.25),
    "batch statistics": (lambda net, x: 2 * functional.instance_norm(x), 4.0),
    "whole numbers": (lambda net, x: x * ((x > 0).long() | 1), 1.0),
    "a constant": (lambda net, x: x + torch.zeros(4, 1, 1), 1.0),
}


@pytest.mark.parametrize(("step", "square"), STEPS.values(), ids=STEPS)
def test_the_mean_square_follows_what_a_network_computes(step: Any, square: float) -> None:
    found = estimated(Net(step).eval(), torch.ones(1, 4, 8, 8))
    assert found == {"norm.running_mean": square, "norm.running_var": square}


@pytest.mark.parametrize("step", [lambda net, x: 0 * x, lambda net, x: torch.ones(x.shape)])
def test_what_has_no_size_is_left_out(step: Any) -> None:
    assert estimated(Net(step).eval(), torch.ones(1, 4, 8, 8)) == {}


def test_a_batch_norm_is_followed_by_values_of_one() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 1), *(nn.BatchNorm2d(4) for _ in range(4))).eval()
    found = estimated(model, torch.ones(1, 4, 8, 8))
    assert len(found) == 8
    assert set(found.values()) == {1.0}


NETWORKS = {
    "resnet18": dict(channels=(16, 16, 16, 16), layers=(4, 4, 4, 4), num_classes=0),
    "visformer_tiny": dict(
        img_size=64, embed_dim=32, init_channels=16, depth=(3, 6, 6), num_heads=2, num_classes=0
    ),
}
"""Networks with residual branches, narrow and deep."""


@pytest.mark.parametrize(("name", "numbers"), NETWORKS.items(), ids=NETWORKS)
def test_values_keep_their_size_in_a_deep_network(name: str, numbers: dict[str, Any], tmp_path: Path) -> None:
    settings = {"input_size": [3, 64, 64]}
    config = {"architecture": name, "model_args": numbers, "pretrained_cfg": settings}
    (tmp_path / "config.json").write_text(json.dumps(config))
    net = network(config)
    safetensors_file.write(tmp_path / "model.safetensors", [*module_recipe.planned(net, 0, LATEST)])
    model = models.load(tmp_path, net)
    found: dict[str, float] = {}
    for path, module in model.named_modules():
        if hasattr(module, "running_var"):

            def note(norm: Any, given: Any, path: str = path) -> None:
                found[path] = float(given[0].square().mean() / norm.running_var.mean())

            module.register_forward_pre_hook(note)
    with torch.no_grad():
        model(torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 64, 64), np.float32)))
    assert len(found) > 25
    assert {path: ratio for path, ratio in found.items() if not 1 / 16 < ratio < 16} == {}


@pytest.mark.parametrize(("version", "near_1"), [(1, True), (LATEST, False)])
def test_before_version_2_of_the_recipe_all_variances_are_near_1(
    version: int, near_1: bool, tmp_path: Path
) -> None:
    settings = {"input_size": [3, 64, 64]}
    net = network(
        {"architecture": "resnet18", "model_args": NETWORKS["resnet18"], "pretrained_cfg": settings}
    )
    safetensors_file.write(tmp_path / "drawn", [*module_recipe.planned(net, 0, version)])
    means = [
        np.frombuffer(b"".join(entry.chunks()), np.float32).mean()
        for name, entry in safetensors_file.read_header(tmp_path / "drawn").items()
        if name.endswith("running_var")
    ]
    assert len(means) > 25
    assert all(0.8 < mean < 1.25 for mean in means) is near_1
