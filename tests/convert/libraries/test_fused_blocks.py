"""Fused blocks, against the libraries' own blocks in float64."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from vconv.catalog.systems import System, find, miniature
from vconv.convert.architectures.outputs import output_names
from vconv.convert.conversion import image_size
from vconv.convert.libraries import fused_blocks, models
from vconv.convert.libraries.layers import find_blocks
from vconv.convert.network import Network
from vconv.convert.sources.base import Source
from vconv.convert.sources.table import Request, open_source
from vconv.runtime.devices.table import find_device
from vconv.runtime.timing import launches

MOST_PER_BLOCK = 13
"""Two norms, two sums, four products, the attention, the activation, and three launches for RoPE."""


def opened(system: System, folder: Path, **asked: tuple[str, ...]) -> tuple[nn.Module, Source]:
    source = open_source(Request(system, "synthetic:1", **asked), folder)  # type: ignore[arg-type]
    return models.load(source.folder, source.network).eval(), source


def outputs(
    model: nn.Module, network: Network, images: torch.Tensor, dtype: torch.dtype = torch.float32
) -> list[NDArray[np.float64]]:
    with torch.inference_mode():
        found = models.Outputs(model, network).eval()(images.to(dtype))
    return [value.double().numpy() for value in found]


def distance(actual: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def launched(model: nn.Module, network: Network, images: torch.Tensor) -> int:
    wrapped = models.Outputs(model, network).eval()
    with torch.no_grad():
        found = launches.count(lambda: wrapped(images), find_device("cpu"), ran=False)
    assert found is not None
    return found.total


@pytest.mark.every_system
def test_fused_blocks_compute_what_the_library_computes_in_float64(
    small_system: System, tmp_path: Path
) -> None:
    model, source = opened(small_system, tmp_path)
    network = source.network
    if fused_blocks.lack(network):
        pytest.skip(fused_blocks.lack(network))
    images = torch.from_numpy(
        np.random.default_rng(0).normal(size=(2, 3, *image_size(source))).astype(np.float32)
    )
    exact = outputs(copy.deepcopy(model).double(), network, images, torch.float64)
    stock = outputs(model, network, images)
    fused_blocks.fuse(model, network)
    for name, actual, library, expected in zip(
        output_names(network), outputs(model, network, images), stock, exact, strict=True
    ):
        assert distance(actual, expected) < max(2e-6, 2 * distance(library, expected)), name


@pytest.mark.parametrize("name", ["dinov2-giant", "dinov3-vith16plus"])
def test_gated_blocks_are_fused(name: str, tmp_path: Path) -> None:
    model, source = opened(miniature(find(name)), tmp_path)
    images = torch.randn(1, 3, *image_size(source), generator=torch.Generator().manual_seed(0))
    exact = outputs(copy.deepcopy(model).double(), source.network, images, torch.float64)
    fused_blocks.fuse(model, source.network)
    found = outputs(model, source.network, images)
    assert max(map(distance, found, exact)) < 2e-6


@pytest.mark.every_system
def test_a_fused_block_launches_thirteen_operators_at_most(small_system: System, tmp_path: Path) -> None:
    model, source = opened(small_system, tmp_path)
    network = source.network
    if fused_blocks.lack(network):
        pytest.skip(fused_blocks.lack(network))
    images = torch.zeros(1, 3, *image_size(source))
    before = launched(model, network, images)
    blocks = find_blocks(model, network)
    fused_blocks.fuse(model, network)
    after = launched(model, network, images)
    for block in blocks:
        block.forward = lambda tokens, *_, **__: tokens
    around = launched(model, network, images)
    # The tables of RoPE are made once for all blocks, in two launches.
    assert after - around <= MOST_PER_BLOCK * len(blocks) + 2
    assert after < before


@pytest.mark.parametrize(
    ("name", "asked", "why"),
    [
        ("dinov3-convnext-tiny", (), "stage"),
        ("dinov3-vits16", ("pooled", "attention_1"), "attention probabilities"),
    ],
    ids=["stages", "attention probabilities"],
)
def test_blocks_that_cannot_be_fused_are_named_with_the_reason(
    name: str, asked: tuple[str, ...], why: str, tmp_path: Path
) -> None:
    _, source = opened(miniature(find(name)), tmp_path, **({"outputs": asked} if asked else {}))
    assert why in fused_blocks.lack(source.network)


def test_a_block_with_a_tensor_of_another_kind_is_not_fused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, source = opened(miniature(find("dinov3-vits16")), tmp_path)
    assert fused_blocks.lack(source.network) == ""
    monkeypatch.setattr(fused_blocks, "_PARTS", fused_blocks._PARTS - {"scale1"})
    assert fused_blocks.lack(source.network) == "its blocks also have scale1"


def test_the_activation_is_the_one_that_is_given(tmp_path: Path) -> None:
    system = miniature(find("dinov3-vits16"))
    model, source = opened(system, tmp_path)
    called = []

    def gelu(values: torch.Tensor) -> torch.Tensor:
        called.append(values.shape)
        return functional.gelu(values)

    fused_blocks.fuse(model, source.network, gelu)
    outputs(model, source.network, torch.zeros(1, 3, *image_size(source)))
    assert len(called) == source.network.blocks


def test_a_mask_is_refused(tmp_path: Path) -> None:
    model, source = opened(miniature(find("dinov2-large")), tmp_path)
    fused_blocks.fuse(model, source.network)
    block = find_blocks(model, source.network)[0]
    with pytest.raises(ValueError, match="no masks"):
        block(torch.zeros(1, 2, source.network.numbers.width), attention_mask=torch.ones(1, 2))
