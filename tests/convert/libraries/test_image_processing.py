from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vconv.catalog.systems import SYSTEMS
from vconv.convert.libraries.image_processing import (
    IMAGE_PROCESSING,
    Filter,
    ImageProcessing,
    Resize,
    Start,
)
from vconv.errors import InputError

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
LEVEL = 1 / 255
EXPECTED = {
    "dinov3-vits16": ImageProcessing(
        Resize((224, 224), Filter.BILINEAR, whole_levels=False), None, Start.DOWN, LEVEL, *IMAGENET
    ),
    "vit_small_patch16_dinov3.lvd1689m": ImageProcessing(
        Resize(256, Filter.BICUBIC, whole_levels=True), (256, 256), Start.HALF_TO_EVEN, LEVEL, *IMAGENET
    ),
    "dinov2-large": ImageProcessing(
        Resize(256, Filter.BICUBIC, whole_levels=True), (224, 224), Start.DOWN, LEVEL, *IMAGENET
    ),
    "vit-base-patch16-224-in21k": ImageProcessing(
        Resize((224, 224), Filter.BILINEAR, whole_levels=True), None, Start.DOWN, LEVEL, *HALF
    ),
}
"""What the libraries' documentation and code say that these processors do."""


def read(folder: Path, name: str, **edits: Any) -> ImageProcessing:
    """Read the steps of a system's processor, after edits of the file that describes it."""
    system = SYSTEMS[name]
    config = dict(system.config)
    if system.preprocessor:
        (folder / "preprocessor_config.json").write_text(json.dumps({**system.preprocessor, **edits}))
    else:
        config["pretrained_cfg"] = {**config["pretrained_cfg"], **edits}
    (folder / "config.json").write_text(json.dumps(config))
    return IMAGE_PROCESSING[system.library](folder, config)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_the_steps_are_those_of_the_stock_processor(name: str, tmp_path: Path) -> None:
    found, expected = read(tmp_path, name), EXPECTED[name]
    assert (found.resize, found.crop, found.start) == (expected.resize, expected.crop, expected.start)
    assert found.factor == pytest.approx(expected.factor)
    assert found.mean == pytest.approx(expected.mean)
    assert found.std == pytest.approx(expected.std)


def test_switched_off_steps_are_left_out(tmp_path: Path) -> None:
    off = dict.fromkeys(("do_resize", "do_center_crop", "do_rescale", "do_normalize"), False)
    found = read(tmp_path, "dinov2-large", **off)
    assert found == ImageProcessing(None, None, Start.DOWN, 1.0, (0.0,) * 3, (1.0,) * 3)


def test_timm_squashes_an_image_where_its_configuration_says_so(tmp_path: Path) -> None:
    found = read(tmp_path, "vit_small_patch16_dinov3.lvd1689m", crop_mode="squash")
    assert found.resize == Resize((256, 256), Filter.BICUBIC, whole_levels=True)


@pytest.mark.parametrize(
    ("name", "edits", "got"),
    [
        ("dinov2-large", {"resample": 0}, "the filter nearest"),
        ("dinov2-large", {"size": {"shortest_edge": 256, "longest_edge": 300}}, "longest_edge"),
        ("dinov2-large", {"do_pad": True}, "do_pad"),
        ("vit_small_patch16_dinov3.lvd1689m", {"crop_mode": "border"}, "ResizeKeepRatio"),
        ("vit_small_patch16_dinov3.lvd1689m", {"interpolation": "nearest"}, "the filter nearest"),
    ],
)
def test_a_step_that_a_graph_cannot_hold_is_refused(
    name: str, edits: dict[str, Any], got: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, name, **edits)
    assert got in str(caught.value.got)
    assert "--with-preprocessing" in caught.value.fix
