from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vconv.catalog.systems import SYSTEMS
from vconv.convert.libraries import complexity
from vconv.convert.sources.base import Source
from vconv.convert.sources.table import Request, open_source


def test_it_counts_the_products_of_the_architecture(small_source: Source, size: tuple[int, int]) -> None:
    network, numbers = small_source.network, small_source.network.numbers
    patches = (size[0] // numbers.patch) * (size[1] // numbers.patch)
    tokens = 1 + network.registers + patches
    width, hidden = numbers.width, numbers.hidden
    pooler = network.head == "pooler"
    block = tokens * (4 * width**2 + 2 * width * hidden) + 2 * tokens**2 * width
    given = tokens * (6 * width + hidden) + numbers.heads * tokens**2
    found = complexity.measure(small_source.folder, network, size)
    assert found.multiply_accumulates == (
        patches * width * 3 * numbers.patch**2 + numbers.blocks * block + pooler * width**2
    )
    # Query, key, value and projection; both layers of the MLP; attention scores; attention output.
    assert found.activations == patches * width + numbers.blocks * given + pooler * width


def test_parameters_are_the_elements_of_the_checkpoint(small_source: Source, size: tuple[int, int]) -> None:
    held = sum(math.prod(entry.shape) for entry in small_source.entries.values())
    assert complexity.measure(small_source.folder, small_source.network, size).parameters == held


def test_no_weight_is_read(small_source: Source, size: tuple[int, int]) -> None:
    expected = complexity.measure(small_source.folder, small_source.network, size)
    for path in small_source.folder.glob("*.safetensors"):
        path.unlink()
    assert complexity.measure(small_source.folder, small_source.network, size) == expected


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
def test_no_tensor_without_data_is_left_in_a_cache_of_the_library(
    small_source: Source, stock: Callable[[Path], Any]
) -> None:
    unusual = (80, 112)  # of no other test, which might have filled the cache
    complexity.measure(small_source.folder, small_source.network, unusual)
    with torch.no_grad():
        found = stock(small_source.folder)(torch.zeros(1, 3, *unusual)).last_hidden_state
    assert type(found) is torch.Tensor
    assert bool(found.isfinite().all())


def test_counts_of_the_full_sized_model_are_those_that_the_library_publishes(tmp_path: Path) -> None:
    """timm's model card gives 21.6 M parameters, 6.3 GMACs and 17.0 M activations at 256 x 256."""
    folder = tmp_path / "source"
    folder.mkdir()
    source = open_source(Request(SYSTEMS["vit_small_patch16_dinov3.lvd1689m"], "synthetic:0"), folder)
    found = complexity.measure(source.folder, source.network, (256, 256))
    assert f"{found.parameters / 1e6:.1f}" == "21.6"
    assert found.multiply_accumulates / 1e9 == pytest.approx(6.3, abs=0.06)
    assert f"{found.activations / 1e6:.1f}" == "17.0"
