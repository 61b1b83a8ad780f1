from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published_formulas import resampled_positions
from torch import Tensor

from vconv.catalog.systems import SYSTEMS, System, miniature
from vconv.convert.layouts.table import LAYOUTS
from vconv.convert.libraries import corrections, models
from vconv.convert.libraries.readers import network
from vconv.convert.patches import rope_periods, table
from vconv.convert.patches.base import applied
from vconv.convert.sources.base import Source
from vconv.convert.sources.sizes import SizeRequest
from vconv.convert.sources.table import Request, open_source

Distance = Callable[[Any, Any], float]
Named = Callable[[Any, Tensor], dict[str, Tensor]]

KNOWN = [
    1.0, 1.3359375, 1.78125, 2.375, 3.15625, 4.21875, 5.625, 7.5,
    10.0, 13.3125, 17.75, 23.75, 31.625, 42.25, 56.25, 75.0,
]  # fmt: skip
"""Periods of the released networks with heads of 64 channels: 100^(i / 16), with eight significant bits."""


PLACES = {"dinov3_vit": "rope_embeddings.inv_freq", "timm dinov3": "rope.periods"}
"""The buffer that the reference corrects, by family."""


def corrected_place(source: Source) -> str:
    """Name of the buffer that the reference corrects; empty if there is none."""
    return PLACES.get(source.network.layout.family, "")


def test_periods_of_the_released_networks_are_known() -> None:
    assert corrections.authors_periods(100.0, 64).tolist() == KNOWN
    assert rope_periods.periods(100.0, 64).tolist() == KNOWN


@pytest.mark.parametrize("head_dim", [32, 48, 64, 80, 96, 128])
@pytest.mark.parametrize("theta", [10.0, 100.0, 10000.0])
def test_periods_agree_with_the_patch_and_with_torch(head_dim: int, theta: float) -> None:
    found = corrections.authors_periods(theta, head_dim)
    exact = torch.tensor([theta ** (index / (head_dim // 4)) for index in range(head_dim // 4)])
    assert found.dtype == np.float32
    assert found.tolist() == exact.to(torch.bfloat16).tolist()
    assert found.tolist() == rope_periods.periods(theta, head_dim).tolist()


def test_rounding_is_to_nearest_and_ties_to_even() -> None:
    """There are two periods: 1, and the square root of theta, chosen halfway between two bfloat16 numbers."""
    for value, expected in ((1 + 2**-8, 1.0), (1 + 3 * 2**-8, 1 + 2**-6), (1 + 2**-8 + 2**-20, 1 + 2**-7)):
        assert corrections.authors_periods(value**2, 8).tolist() == [1.0, expected]


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
def test_the_default_of_theta_is_one_hundred(small_source: Source, stock: Callable[[Path], Any]) -> None:
    config = {key: value for key, value in small_source.config.items() if key != "rope_theta"}
    model = stock(small_source.folder)
    corrections.correct(model, "dinov3_vit", config)
    expected = 1 / torch.from_numpy(corrections.authors_periods(100.0, small_source.network.head_dim))
    assert torch.equal(model.rope_embeddings.inv_freq, expected)


def test_the_correction_changes_one_buffer_and_nothing_else(
    small_source: Source, stock: Callable[[Path], Any]
) -> None:
    original, model = stock(small_source.folder), stock(small_source.folder)
    family, place = small_source.network.layout.family, corrected_place(small_source)
    name = corrections.correct(model, family, small_source.config)
    assert name == ("original + authors' periods" if place else "original")
    before, after = dict(original.named_buffers()), dict(model.named_buffers())
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    assert set(before) == set(after)
    assert changed == ([place] if place else [])
    for key, parameter in original.named_parameters():
        assert torch.equal(parameter, model.get_parameter(key))
    if place:
        periods = torch.from_numpy(corrections.authors_periods(100.0, small_source.network.head_dim))
        assert torch.equal(after[place], 1 / periods if place.endswith("inv_freq") else periods)


def test_the_correction_changes_the_output_only_of_networks_with_rope(
    small_source: Source,
    stock: Callable[[Path], Any],
    corrected: Callable[[Source], Any],
    named: Named,
    pixel_values: Tensor,
    distance: Distance,
) -> None:
    before = named(stock(small_source.folder), pixel_values)["last_hidden_state"]
    after = named(corrected(small_source), pixel_values)["last_hidden_state"]
    has_rope = bool(corrected_place(small_source))
    assert (distance(after, before) > 1e-5) is has_rope
    assert torch.equal(after, before) is not has_rope


@pytest.mark.parametrize("system", ["vit_small_patch16_dinov3.lvd1689m"], indirect=True)
@pytest.mark.parametrize("dynamic", [True, False])
def test_a_corrected_timm_network_is_the_patched_one_and_not_the_stock_one(
    small_source: Source,
    stock: Callable[[Path], Any],
    named: Named,
    pixel_values: Tensor,
    distance: Distance,
    dynamic: bool,
) -> None:
    arguments = {**small_source.config["model_args"], "dynamic_img_size": dynamic}
    config = {**small_source.config, "model_args": arguments}
    (small_source.folder / "config.json").write_text(json.dumps(config))
    original, model, patched = (stock(small_source.folder) for _ in range(3))
    assert (model.rope.pos_embed_cached is None) is dynamic
    corrections.correct(model, "timm dinov3", config)
    expected, found = named(original, pixel_values), named(model, pixel_values)
    with applied(patched, network(config), [rope_periods.PATCH]):
        agreed = named(patched, pixel_values)
    for name, value in found.items():
        assert distance(agreed[name], value) < 1e-6, name
        assert distance(expected[name], value) > 1e-5, name


@pytest.mark.parametrize("system", ["vit_small_patch16_dinov3.lvd1689m"], indirect=True)
def test_a_corrected_timm_network_computes_the_authors_angles(
    small_source: Source, corrected: Callable[[Source], Any], distance: Distance
) -> None:
    """``2 pi c / period`` for centred coordinates from -1 to 1, computed in float64 with NumPy."""
    model, side = corrected(small_source), 4
    centres = (np.arange(side) + 0.5) / side * 2 - 1
    grid = np.stack(np.meshgrid(centres, centres, indexing="ij"), axis=-1).reshape(-1, 2)
    periods = corrections.authors_periods(100.0, small_source.network.head_dim).astype(np.float64)
    angles = (2 * np.pi * grid[:, :, None] / periods).reshape(side * side, -1)
    expected = np.concatenate([np.tile(np.sin(angles), 2), np.tile(np.cos(angles), 2)], axis=1)
    assert distance(model.rope.get_embed([side, side]), expected) < 1e-6


def test_the_reference_shares_no_code_with_the_patches() -> None:
    source = inspect.getsource(corrections)
    assert [
        word for word in ("vconv.convert", "bfloat16(", "_cache_embed", "rope_periods") if word in source
    ] == []


def test_every_family_with_a_corrective_patch_has_a_reference(system: System) -> None:
    net = network(system.config)
    corrective = [patch for patch in table.called_for(net) if patch.corrective]
    assert (net.layout.family in corrections._CORRECTIONS) is bool(corrective)


def test_every_correction_belongs_to_a_known_family() -> None:
    assert set(corrections._CORRECTIONS) == set(PLACES)
    assert set(PLACES) <= set(LAYOUTS)


@pytest.mark.parametrize(
    ("name", "grid"),
    [("dinov2-small", (3, 3)), *(("vit_small_patch14_dinov2.lvd142m", grid) for grid in ((3, 3), (6, 3)))],
)
def test_the_reference_of_the_authors_kernel_is_the_stock_model_with_their_positions(
    name: str, grid: tuple[int, int], tmp_path: Path, distance: Distance
) -> None:
    """The published formula, restated on the same weights, gives every position and every token."""
    size = (14 * grid[0], 14 * grid[1])
    source = open_source(Request(miniature(SYSTEMS[name]), "synthetic:1", size=SizeRequest(size)), tmp_path)
    model: Any = models.load(source.folder, source.network)
    holder, key = (
        (model.embeddings, "position_embeddings") if name == "dinov2-small" else (model, "pos_embed")
    )
    before = getattr(holder, key).clone()
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    run = models.Outputs(model, source.network)
    with torch.inference_mode():
        stock = run(images)[-1]
        assert corrections.resample_positions(model, grid) == "original + positions by the authors' kernel"
        after, found = getattr(holder, key), run(images)[-1]
    expected = resampled_positions(before, *grid)
    assert after.shape == expected.shape
    assert distance(after, expected) < 1e-6
    assert distance(found, stock) > 1e-3
    seen: list[Tensor] = []
    first = model.encoder.layer[0] if hasattr(model, "encoder") else model.blocks[0]
    handle = first.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    with torch.inference_mode():
        run(images)
        setattr(holder, key, torch.nn.Parameter(torch.zeros_like(after)))
        run(images)
    handle.remove()
    assert distance(seen[0] - seen[1], expected.expand(2, -1, -1)) < 1e-5
