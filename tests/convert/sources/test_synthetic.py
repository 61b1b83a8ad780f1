from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from vconv.catalog.systems import System
from vconv.convert.libraries.readers import network
from vconv.convert.sources import synthetic
from vconv.convert.sources.recipes.table import LATEST, RECIPES
from vconv.types import silent


@pytest.mark.parametrize("version", RECIPES)
def test_every_tensor_is_what_the_recipe_draws(small_system: System, version: int, scratch: Path) -> None:
    source = synthetic.draw(small_system, 5, version, scratch, silent)
    net = network(small_system.config)
    found = safetensors.torch.load_file(scratch / "model.safetensors")
    assert set(found) == set(net.tensors())
    for key, tensor in net.tensors().items():
        assert torch.equal(found[key], torch.from_numpy(RECIPES[version].draw(tensor, net, 5))), key
    content = (scratch / "model.safetensors").read_bytes()
    assert source.files == {"model.safetensors": hashlib.sha256(content).hexdigest()}


def test_it_says_what_it_is(small_system: System, scratch: Path) -> None:
    lines: list[str] = []
    source = synthetic.draw(small_system, 42, LATEST, scratch, lines.append)
    assert (source.origin.label, source.origin.synthetic) == ("synthetic:42", True)
    assert source.origin.recipe == LATEST
    assert source.licence == "none: synthetic weights"
    assert (source.from_catalog, source.licence_files) == ((), ())
    assert lines == ["drawing synthetic weights from seed 42"]


def test_the_configurations_are_the_published_ones(small_system: System, scratch: Path) -> None:
    source = synthetic.draw(small_system, 0, LATEST, scratch, silent)
    assert source.config == dict(small_system.config)
    assert source.preprocessor == dict(small_system.preprocessor)
    assert json.loads((scratch / "config.json").read_text()) == dict(small_system.config)
    names = ["model.safetensors", "config.json"]
    names += ["preprocessor_config.json"] if small_system.preprocessor else []
    assert {path.name for path in scratch.iterdir()} == set(names)


@pytest.mark.parametrize("seed", [0, 999_999_999])
def test_the_stock_library_loads_it(
    small_system: System, scratch: Path, stock: Callable[[Path], Any], seed: int
) -> None:
    source = synthetic.draw(small_system, seed, LATEST, scratch, silent)
    stored = safetensors.torch.load_file(scratch / "model.safetensors")
    disk_key = source.network.layout.disk_key
    held = {disk_key(name): value for name, value in stock(source.folder).named_parameters()}
    assert {name for name in stored if torch.equal(held[name], stored[name])} == set(held)
