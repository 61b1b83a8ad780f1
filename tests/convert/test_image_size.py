from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from examples import EXAMPLES

from vconv.catalog.systems import System
from vconv.convert.conversion import image_size
from vconv.convert.libraries.readers import network
from vconv.convert.sources.base import Origin, Source
from vconv.errors import InputError

Refused = Callable[..., AbstractContextManager[None]]

ANY_SIZE = ["dinov3-vits16", "vit_small_patch16_dinov3.lvd1689m", "dinov2-large"]
FIXED_SIZE = [name for name in EXAMPLES if name not in ANY_SIZE]
SIZES = {
    "dinov3-vits16": (224, 224),
    "vit_small_patch16_dinov3.lvd1689m": (256, 256),
    "dinov2-large": (224, 224),
    "vit_small_patch14_reg4_dinov2.lvd142m": (518, 518),
    "vit-base-patch16-224-in21k": (224, 224),
}
"""The size of the images that the published preprocessing makes."""


def sized(system: System, height: Any, width: Any, folder: Path) -> Source:
    """Return a source whose preprocessing makes images of another size; it needs no weights."""
    config, preprocessor = dict(system.config), dict(system.preprocessor)
    square = {"height": height, "width": width}
    if system.library == "timm":
        preprocessing = {"input_size": [3, height, width], "fixed_input_size": False}
        config["pretrained_cfg"] = {**config["pretrained_cfg"], **preprocessing}
        side = network(system.config).numbers.image[0]
        config["model_args"] = {"img_size": side, **config.get("model_args", {})}
    elif preprocessor.get("do_center_crop"):
        preprocessor["crop_size"] = square
    else:
        preprocessor["size"] = square
    return Source(Origin("folder", "x"), folder, {}, config, preprocessor, {}, "")


def test_the_image_size_is_the_processors(system: System, tmp_path: Path) -> None:
    source = Source(Origin("folder", "x"), tmp_path, {}, system.config, system.preprocessor, {}, "")
    assert image_size(source) == SIZES[system.name]


def test_the_image_size_of_a_shrunk_system_is_its_own(small_source: Source, size: tuple[int, int]) -> None:
    assert image_size(small_source) == size


@pytest.mark.parametrize("system", ANY_SIZE, indirect=True)
def test_a_network_for_any_size_takes_any_multiple_of_its_patch(system: System, tmp_path: Path) -> None:
    patch = network(system.config).numbers.patch
    assert image_size(sized(system, patch, 32 * patch, tmp_path)) == (patch, 32 * patch)


@pytest.mark.parametrize(
    ("height", "width"), [(225, 224), (224, 230), (0, 224), (8, 8), (-16, 224), (224, 22400)]
)
def test_a_size_that_is_no_multiple_of_the_patch_is_refused(
    system: System, refused: Refused, tmp_path: Path, height: int, width: int
) -> None:
    source = sized(system, height, width, tmp_path)
    patch, file = source.network.numbers.patch, source.library.files[-1]
    with refused(
        InputError, "does not fit the patches", f"got {height}x{width}", f"multiples of {patch}", file
    ):
        image_size(source)


@pytest.mark.parametrize("system", FIXED_SIZE, indirect=True)
def test_a_size_that_the_position_embedding_does_not_have_is_refused(
    system: System, refused: Refused, tmp_path: Path
) -> None:
    patch, (height, width) = network(system.config).numbers.patch, SIZES[system.name]
    source = sized(system, height, width - patch, tmp_path)
    fragments = (f"got {height}x{width - patch}", f"expected {height}x{width}", source.library.files[-1])
    with refused(InputError, "does not fit the position embedding", *fragments):
        image_size(source)


@pytest.mark.parametrize("system", ["vit_small_patch16_dinov3.lvd1689m"], indirect=True)
def test_a_timm_network_made_for_one_size_takes_no_other(small_source: Source, refused: Refused) -> None:
    config = dict(small_source.config)
    config["model_args"] = {**config["model_args"], "dynamic_img_size": False, "img_size": 96}
    config["pretrained_cfg"] = {**config["pretrained_cfg"], "fixed_input_size": False}
    with refused(InputError, "does not fit the position embedding", "got 64x64", "expected 96x96"):
        image_size(replace(small_source, config=config))
