from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
import transformers
from narrow import SMALL

from vconv.convert.libraries import transformers_sizes
from vconv.errors import InputError

Refused = Callable[..., AbstractContextManager[None]]
SQUARE = {"crop_pct": 0.875, "size": {"shortest_edge": 32}}
CROPPED = {"do_center_crop": True, "size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}
RESIZED: list[tuple[dict[str, Any], tuple[int, int], dict[str, Any]]] = [
    ({"size": {"height": 32, "width": 32}}, (64, 48), {"size": {"height": 64, "width": 48}}),
    (
        CROPPED,
        (64, 48),
        {**CROPPED, "size": {"shortest_edge": 80}, "crop_size": {"height": 64, "width": 48}},
    ),
    (
        {**CROPPED, "crop_pct": 0.9},
        (64, 48),
        {
            **CROPPED,
            **{"crop_pct": 0.9, "size": {"shortest_edge": 80}, "crop_size": {"height": 64, "width": 48}},
        },
    ),
    (SQUARE, (64, 64), {**SQUARE, "size": {"shortest_edge": 64}}),
]
"""Settings of processors, and those for another size: a resize, a crop, PoolFormer's, ConvNeXt's."""


@pytest.mark.parametrize(("settings", "size", "expected"), RESIZED)
def test_a_processor_makes_images_of_the_size(
    settings: dict[str, Any], size: tuple[int, int], expected: dict[str, Any]
) -> None:
    _, made = transformers_sizes.resized({"image_size": 32}, settings, size)
    assert made == expected
    assert transformers_sizes.image_size({"image_size": 32}, made) == size


def test_a_processor_of_squares_makes_no_other_images(refused: Refused) -> None:
    with refused(InputError, "got 64,48", "expected a square", "give --size 64,64 or --size 48,48"):
        transformers_sizes.resized({"image_size": 32}, SQUARE, (64, 48))


@pytest.mark.parametrize(
    ("make", "own"),
    [
        (lambda: transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**SMALL)), (32, 32)),
        (lambda: transformers.SwinModel(transformers.SwinConfig(depths=[1], num_heads=[1])), None),
        (lambda: transformers.ResNetModel(transformers.ResNetConfig(depths=[1, 1, 1, 1])), None),
    ],
)
def test_only_a_model_that_resamples_positions_is_asked(
    make: Callable[[], Any], own: tuple[int, int] | None
) -> None:
    """A Swin has the argument, and no position embedding that it is for; a ResNet has neither."""
    found = transformers_sizes.unasked_size(make())
    assert found == own
    assert transformers_sizes.asking(found, torch.zeros(1, 3, 32, 32)) == {}
    asked = {"interpolate_pos_encoding": True} if own else {}
    assert transformers_sizes.asking(found, torch.zeros(1, 3, 32, 48)) == asked
