"""Version 2 of the recipe: what its networks have of trained ones, measured in the stock libraries."""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from examples import EXAMPLES
from torch import Tensor

from vconv.catalog.systems import SYSTEMS, System
from vconv.convert.libraries.readers import network
from vconv.convert.network import Network, TensorSpec
from vconv.convert.sources.recipes.second import channels
from vconv.convert.sources.recipes.second.recipe import RECIPE
from vconv.convert.sources.table import Request, open_source
from vconv.runtime.inputs.images import natural_images
from vconv.runtime.inputs.preprocessing import preprocess

ROOT = Path(__file__).parents[4]
WITH_POSITIONS = [
    name
    for name, system in EXAMPLES.items()
    if any("positions" in rule.parts for rule in network(system.config).layout.rules)
]
RECORDED = json.loads((ROOT / "benchmarks" / "results" / "recipe_statistics.json").read_text())
TRAINED = RECORDED["trained"]["statistics"]
"""Trained DINOv2-small on photographs, by block."""


def by_role(net: Network, block: int | None, role: str) -> TensorSpec:
    return next(one for one in net.tensors().values() if (one.block, one.role) == (block, role))


def weight(net: Network, block: int | None, role: str, seed: int = 0) -> np.ndarray[Any, Any]:
    return RECIPE.draw(by_role(net, block, role), net, seed).astype(np.float64)


def rms(x: Tensor) -> float:
    return float(x.pow(2).mean().sqrt())


def test_a_network_in_full_behaves_as_the_trained_one_does(tmp_path: Path) -> None:
    source = open_source(Request(SYSTEMS["dinov2-small"], "synthetic:5"), tmp_path)
    model = transformers.AutoModel.from_pretrained(source.folder, dtype=torch.float32).eval()
    found: dict[str, list[float]] = {name: [] for name in ("attention", "MLP", "before the GELU, deviation")}
    scales = [module for name, module in model.named_modules() if "layer_scale" in name]
    for number, scale in enumerate(scales):
        values = found["MLP" if number % 2 else "attention"]
        scale.register_forward_hook(lambda *run, values=values: values.append(rms(run[-1])))
    for name, module in model.named_modules():
        if name.endswith("fc1"):
            module.register_forward_hook(
                lambda *run: found["before the GELU, deviation"].append(float(run[-1].std()))
            )
    images = torch.from_numpy(preprocess(source.folder, natural_images(3, 0)))
    with torch.no_grad():
        states = model(images, output_hidden_states=True).hidden_states[1:]
    found["residual stream"] = [rms(state) for state in states]
    found["greatest value"] = [float(state.abs().max()) for state in states]
    assert len(scales) == 24
    before, after = (state[..., channels.CLASS_CHANNEL] for state in states[-2:])
    assert float(before[:, 0].min()) > 8, "the class token grows in its own channel"
    assert float(before[:, 1:].abs().mean()) < 1, "and patches do not"
    assert float(after.max()) < 0, "and the last attention writes into every token"
    for name, values in found.items():
        ratios = np.array(values) / [block[name] for block in TRAINED]
        assert ratios.min() > 0.5, (name, ratios)
        assert ratios.max() < 2.0, (name, ratios)


@pytest.mark.parametrize("width", [64, 96, 384, 768, 4096])
def test_some_channels_are_kept_in_networks_of_any_width(width: int) -> None:
    kept = channels.kept(width)
    assert kept.sum() >= min(width // 2, 30)
    assert kept.sum() == width // 8 or width < 384
    apart = {channels.channel_of(number, width) for number, _ in channels.LAST}
    assert len(apart) == len(channels.LAST)
    assert not any(kept[channel] for channel in apart)


def test_blocks_hardly_add_to_the_kept_channels_and_queries_read_mostly_them(system: System) -> None:
    net = network(system.config)
    kept = channels.kept(net.numbers.width)
    added = (weight(net, 1, "proj") ** 2).mean(axis=1)
    assert added[kept].mean() < 0.01 * added[~kept].mean()
    role = "qkv" if system.library == "timm" else "query"
    read = (weight(net, 1, role)[: net.numbers.width] ** 2).mean(axis=0)
    assert read[kept].mean() > 50 * read[~kept].mean()


def test_keys_are_like_queries_and_values_are_not(system: System) -> None:
    net = network(system.config)
    if system.library == "timm":
        query, key, value = np.split(weight(net, 0, "qkv"), 3)
    else:
        query, key, value = (weight(net, 0, role) for role in ("query", "key", "value"))
    assert np.corrcoef(query.ravel(), key.ravel())[0, 1] == pytest.approx(0.6, abs=0.02)
    assert abs(np.corrcoef(query.ravel(), value.ravel())[0, 1]) < 0.02
    assert query.std() == pytest.approx(key.std(), rel=0.02)


def test_the_output_of_attention_takes_away_what_the_values_read(system: System) -> None:
    net = network(system.config)
    block = round((net.blocks - 1) / 11)
    role, third = (
        ("qkv", slice(2 * net.numbers.width, None)) if system.library == "timm" else ("value", slice(None))
    )
    both = weight(net, block, "proj") @ weight(net, block, role)[third]
    rows = ~channels.kept(net.numbers.width)
    rows[channels.channel_of(channels.CLASS_CHANNEL, net.numbers.width)] = False
    both = both[rows][:, rows]
    assert np.trace(both) / np.linalg.norm(both) / math.sqrt(len(both)) < -0.5


@pytest.mark.parametrize("system", WITH_POSITIONS, indirect=True)
def test_positions_are_in_the_kept_channels_and_neighbours_look_alike(system: System) -> None:
    net = network(system.config)
    values = weight(net, None, "position")
    side = math.isqrt(values.shape[1])
    kept = channels.kept(net.numbers.width)
    grid = values[0, -side * side :].reshape(side, side, -1)
    assert np.abs(grid[..., ~kept]).mean() < 0.05 * np.abs(grid[..., kept]).mean()
    near = np.mean(grid[1:] * grid[:-1]) / np.mean(grid * grid)
    far = np.mean(grid[side // 2 :] * grid[: side - side // 2]) / np.mean(grid * grid)
    assert near > 0.5
    assert abs(far) < 0.3


def test_tokens_of_generated_photographs_differ_in_many_directions(tmp_path: Path) -> None:
    source = open_source(Request(SYSTEMS["dinov2-small"], "synthetic:0"), tmp_path)
    images = torch.from_numpy(preprocess(source.folder, natural_images(4, 0)))
    filters = torch.from_numpy(weight(source.network, None, "patch"))

    def directions(filters: Tensor) -> float:
        """Count them: (sum of the eigenvalues of the covariance) squared / sum of their squares."""
        tokens = torch.nn.functional.conv2d(images.double(), filters, stride=14).flatten(2).mT.flatten(0, 1)
        values = torch.linalg.eigvalsh(torch.cov(tokens.mT))
        return float(values.sum() ** 2 / values.pow(2).sum())

    white = torch.randn(filters.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert directions(filters) > 8
    assert directions(filters) > 3 * directions(white)


def test_the_mean_of_the_gelu_is_cancelled_and_the_difference_of_its_forms_is_not(system: System) -> None:
    net = network(system.config)
    block = net.blocks // 2
    first, bias, second = (torch.from_numpy(weight(net, block, role)) for role in ("fc1", "fc1_bias", "fc2"))
    inputs = torch.randn(
        4000, first.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    exact = torch.nn.functional.gelu(inputs @ first.T + bias)
    tanh = torch.nn.functional.gelu(inputs @ first.T + bias, approximate="tanh")
    output, moved = exact @ second.T, (tanh - exact) @ second.T
    rows = torch.from_numpy(~channels.kept(net.numbers.width))
    assert rms(output.mean(0)[rows]) < 0.2 * rms(output[:, rows])
    assert rms(exact.mean(0)) > 0.3 * rms(exact)
    assert rms(moved.mean(0)[rows]) > 0.7 * rms(moved[:, rows])


def test_no_library_of_linear_algebra_takes_part() -> None:
    """Such libraries add in another order on another processor, and a seed would give other bytes there."""
    modules = sorted((ROOT / "convert" / "sources" / "recipes").rglob("*.py"))
    nodes = [(module.name, node) for module in modules for node in ast.walk(ast.parse(module.read_text()))]
    called = [(name, node.attr) for name, node in nodes if isinstance(node, ast.Attribute)]
    assert ("base.py", "einsum") in called, "einsum adds by itself, unless it is asked to optimise"
    assert [call for call in called if call[1] in ("dot", "inner", "linalg", "matmul", "tensordot")] == []
    assert [name for name, node in nodes if isinstance(node, ast.MatMult)] == []
    assert [name for name, node in nodes if isinstance(node, ast.keyword) and node.arg == "optimize"] == []
