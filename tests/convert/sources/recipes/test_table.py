from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
from torch import Tensor

from vconv.catalog.systems import SYSTEMS, System, miniature
from vconv.convert.files import safetensors_file
from vconv.convert.layouts.table import LAYOUTS
from vconv.convert.libraries.readers import network
from vconv.convert.sources.base import Source
from vconv.convert.sources.recipes.base import Recipe
from vconv.convert.sources.recipes.table import LATEST, RECIPES

Distance = Callable[[Any, Any], float]
Named = Callable[[Any, Tensor], dict[str, Tensor]]

each_recipe = pytest.mark.parametrize(
    "recipe", RECIPES.values(), ids=[f"recipe {number}" for number in RECIPES]
)
DATA = Path(__file__).parents[3] / "data"
RECORDED = {number: json.loads((DATA / f"recipe-{number}.json").read_text()) for number in RECIPES}
"""By version: sums of the tensors that it draws from seed 3, outside the blocks and in block 1."""
UNUSED = ("embeddings.mask_token", "q_proj.bias", "v_proj.bias")
"""Used in training only, or zero by the recipe, as in the files that the authors released."""


def parts_of(key: str, values: Tensor) -> list[tuple[str, Tensor]]:
    """Take a fused projection apart: each third must show by itself."""
    if ".qkv." not in key:
        return [(key, values)]
    return [
        (f"{key} ({name})", part)
        for name, part in zip(("query", "key", "value"), values.chunk(3), strict=True)
    ]


def drawn(recipe: Recipe, system: System, seed: int) -> dict[str, np.ndarray[Any, Any]]:
    net = network(system.config)
    return {key: recipe.draw(tensor, net, seed) for key, tensor in net.tensors().items()}


def test_the_latest_version_has_the_greatest_number() -> None:
    assert max(RECIPES) == LATEST
    assert {number: recipe.version for number, recipe in RECIPES.items()} == {
        number: number for number in RECIPES
    }


@pytest.mark.parametrize("name", RECORDED[1])
@each_recipe
def test_a_version_draws_what_it_always_did(recipe: Recipe, name: str) -> None:
    net, recorded = network(miniature(SYSTEMS[name]).config), RECORDED[recipe.version][name]
    found = {}
    for key, tensor in net.tensors().items():
        if tensor.block in (None, 1):
            weight = recipe.draw(tensor, net, 3).astype(np.float64).ravel()
            found[key] = [np.abs(weight).sum(), weight @ np.cos(np.arange(weight.size))]
    assert found.keys() == recorded.keys()
    for key, sums in recorded.items():
        assert found[key] == pytest.approx(sums, rel=1e-5, abs=1e-4), key


@each_recipe
def test_every_role_has_a_rule_and_every_rule_is_used(recipe: Recipe) -> None:
    roles = {
        rule.role or layout.architecture.parts[rule.parts[0]].role
        for layout in LAYOUTS.values()
        for rule in layout.rules
    }
    assert roles == set(recipe.rules)


@each_recipe
def test_every_tensor_is_finite_and_of_its_shape(recipe: Recipe, small_system: System) -> None:
    tensors = network(small_system.config).tensors()
    for key, weight in drawn(recipe, small_system, 0).items():
        assert weight.dtype == np.float32, key
        assert weight.shape == tensors[key].shape, key
        assert weight.flags.c_contiguous, key
        assert np.isfinite(weight).all(), key
        assert not np.signbit(weight[weight == 0]).any(), key


@each_recipe
def test_a_tensor_does_not_depend_on_the_order(recipe: Recipe, small_system: System) -> None:
    net = network(small_system.config)
    forth = drawn(recipe, small_system, 5)
    for key, tensor in reversed(net.tensors().items()):
        np.testing.assert_array_equal(recipe.draw(tensor, net, 5), forth[key])


@each_recipe
def test_the_same_seed_gives_the_same_bytes(recipe: Recipe, small_system: System, tmp_path: Path) -> None:
    net = network(small_system.config)
    hashes = {safetensors_file.write(tmp_path / f"{i}", recipe.planned(net, 3)) for i in range(2)}
    assert len(hashes) == 1
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()


@each_recipe
def test_two_seeds_differ_in_every_tensor_that_is_not_zero(recipe: Recipe, small_system: System) -> None:
    first, second = drawn(recipe, small_system, 0), drawn(recipe, small_system, 1)
    same = [key for key in first if np.array_equal(first[key], second[key])]
    assert [key for key in same if first[key].any()] == []


def test_no_two_tensors_are_drawn_from_one_stream(system: System) -> None:
    keys = list(network(system.config).tensors())
    keys += [f"{key} {more}" for key in keys for more in ("range", "middle", "aim")]
    assert len({zlib.crc32(key.encode()) for key in keys}) == len(keys)


@each_recipe
def test_what_is_planned_is_what_is_drawn(recipe: Recipe, small_system: System, tmp_path: Path) -> None:
    safetensors_file.write(tmp_path / "file", recipe.planned(network(small_system.config), 2))
    loaded = safetensors.torch.load_file(tmp_path / "file")
    expected = drawn(recipe, small_system, 2)
    assert set(loaded) == set(expected)
    for key, weight in expected.items():
        np.testing.assert_array_equal(loaded[key].numpy(), weight)


@each_recipe
def test_only_biases_of_that_role_are_zero(recipe: Recipe, small_system: System) -> None:
    tensors = network(small_system.config).tensors()
    for key, weight in drawn(recipe, small_system, 0).items():
        assert weight.any() == (tensors[key].role != "zero_bias"), key


def test_every_tensor_that_inference_uses_shows_at_the_output(
    small_source: Source,
    stock: Callable[[Path], Any],
    named: Named,
    pixel_values: Tensor,
    distance: Distance,
) -> None:
    net = small_source.network
    model = stock(small_source.folder)
    image, silent = pixel_values[:1], []
    expected = named(model, image)
    for name, parameter in model.named_parameters():
        key = net.layout.disk_key(name)
        for part, values in parts_of(key, parameter.data):
            before = values.clone()
            values.zero_()
            found = named(model, image)
            values.copy_(before)
            moved = max(
                distance(found[output], expected[output]) for output in ("pooled", "last_hidden_state")
            )
            if moved < 1e-4 and not key.endswith(UNUSED):
                silent.append(part)
    without_rope = [key for key in net.tensors() if key.endswith("attention.key.bias")]
    without_rope += [f"{key} (key)" for key in net.tensors() if key.endswith("qkv.bias")]
    assert silent == without_rope, "softmax cancels a key bias where there is no RoPE, and nothing else"
