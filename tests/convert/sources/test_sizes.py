from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vconv.catalog.systems import SYSTEMS, System
from vconv.convert.conversion import image_size
from vconv.convert.libraries import models
from vconv.convert.libraries.readers import network
from vconv.convert.sources.sizes import SizeRequest
from vconv.convert.sources.table import Request, open_source
from vconv.errors import InputError
from vconv.runtime.inputs.preprocessing import preprocess

Refused = Callable[..., AbstractContextManager[None]]
Distance = Callable[[Any, Any], float]
PATCHES = {name: 14 if "dinov2" in name else 16 for name in SYSTEMS}
POSITIONS = {
    "dinov2-large": ("embeddings.position_embeddings", {"antialias": False}, 1),
    "vit-base-patch16-224-in21k": ("embeddings.position_embeddings", {"antialias": False}, 1),
    "vit_small_patch14_reg4_dinov2.lvd142m": ("pos_embed", {"antialias": True}, 0),
}
"""By system: the key of its position embedding, how its library resamples it, and its prefix tokens in it."""


@pytest.mark.parametrize(("text", "size"), [("336,224", (336, 224)), (" 14 , 28 ", (14, 28))])
def test_a_size_is_height_and_width(text: str, size: tuple[int, int]) -> None:
    assert SizeRequest.read(text) == SizeRequest(size)


@pytest.mark.parametrize(
    ("text", "size"),
    [("dynamic", SizeRequest(dynamic=True)), ("dynamic:336,224", SizeRequest((336, 224), dynamic=True))],
)
def test_a_size_may_be_dynamic(text: str, size: SizeRequest) -> None:
    assert SizeRequest.read(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "dynamic:",
        "dynamic336,224",
        "dynamic,336,224",
        "dyn",
        "",
        "336",
        "336,",
        "336x224",
        "-1,4",
        "1,2,3",
        "336,224;",
        "1e2,4",
        "any",
    ],
)
def test_what_is_not_a_size_is_refused(text: str, refused: Refused) -> None:
    with refused(InputError, "--size is not a size", repr(text), "H,W, such as 336,224, or dynamic"):
        SizeRequest.read(text)


@pytest.mark.parametrize(
    ("asked", "near"),
    [((225, 224), "224,224"), ((0, 224), "16,224"), ((224, 9000), "224,8192"), ((231, 233), "224,240")],
)
def test_a_size_of_broken_patches_is_refused_with_the_nearest_one(
    asked: tuple[int, int], near: str, refused: Refused
) -> None:
    fragments = (f"got {asked[0]},{asked[1]}", "multiples of 16, at most 8192", f"give --size {near}")
    with refused(InputError, "--size does not fit the patches", *fragments):
        SizeRequest(asked).require_fitting(16)


def sized(system: System, scratch: Path, rows: int, columns: int) -> Any:
    patch = PATCHES[system.name]
    size = SizeRequest((rows * patch, columns * patch))
    return open_source(Request(system, "synthetic:1", size=size), scratch)


def test_the_processor_makes_images_of_the_size(small_system: System, scratch: Path) -> None:
    source, patch = sized(small_system, scratch, 6, 3), PATCHES[small_system.name]
    assert image_size(source) == (6 * patch, 3 * patch)
    images = [Image.fromarray(np.full((90, 400, 3), 128, np.uint8))]
    assert preprocess(source.folder, images).shape == (1, 3, 6 * patch, 3 * patch)


@pytest.mark.parametrize("system", ["dinov2-large"], indirect=True)
def test_a_crop_keeps_its_ratio_to_what_it_is_cut_from(small_system: System, scratch: Path) -> None:
    settings = sized(small_system, scratch, 6, 3).preprocessor
    assert small_system.preprocessor["size"] == {"shortest_edge": 64}
    assert small_system.preprocessor["crop_size"] == {"height": 56, "width": 56}
    assert settings["size"] == {"shortest_edge": 96}
    assert settings["crop_size"] == {"height": 84, "width": 42}


def test_the_configurations_as_they_came_are_kept(small_system: System, scratch: Path) -> None:
    source = sized(small_system, scratch, 6, 3)
    assert source.own_configurations == (small_system.config, small_system.preprocessor)
    assert json.loads((source.folder / "config.json").read_text()) == source.config
    own = network(small_system.config).numbers
    assert (source.network.numbers.image, source.network.numbers.positions) == (own.image, own.positions)


@pytest.mark.parametrize("system", POSITIONS, indirect=True)
def test_the_original_resamples_its_positions_as_its_library_says(
    small_system: System, scratch: Path, distance: Distance
) -> None:
    """The position embedding of a black image's tokens is resampled by hand, and put in at the own size."""
    source = sized(small_system, scratch, 6, 3)
    key, options, prefix = POSITIONS[small_system.name]
    model: Any = models.load(source.folder, source.network)
    positions = model.state_dict()[key]
    side = int((positions.shape[1] - prefix) ** 0.5)
    grid = positions[:, prefix:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    resampled = torch.nn.functional.interpolate(grid, size=(6, 3), mode="bicubic", **options)
    expected = torch.cat([positions[:, :prefix], resampled.flatten(2).mT], dim=1)
    patch, found = PATCHES[small_system.name], []
    images = torch.zeros(1, 3, 6 * patch, 3 * patch)
    embeddings = model.embeddings if hasattr(model, "embeddings") else model.norm_pre
    handle = embeddings.register_forward_hook(lambda module, given, result: found.append(result))
    models.Outputs(model, source.network)(images)
    handle.remove()
    tokens = found[0][:, -18:]
    bias = tokens - expected[:, -18:]
    assert distance(bias, bias[:, :1].expand_as(bias)) < 1e-5


@pytest.mark.parametrize("system", ["vit-base-patch16-224-in21k"], indirect=True)
def test_a_vit_is_run_at_another_size_only_on_request(
    small_system: System, scratch: Path, refused: Refused
) -> None:
    processor = {**small_system.preprocessor, "size": {"height": 96, "width": 48}}
    system = replace(small_system, preprocessor=processor)
    with refused(InputError, "does not fit the position embedding", "or give --size 96,48"):
        image_size(open_source(Request(system, "synthetic:1"), scratch))
