from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from vconv.catalog import System
from vconv.runtime.images import natural_image, natural_images
from vconv.runtime.preprocessing import preprocess
from vconv.types import Array

INTERPOLATION = {0: InterpolationMode.NEAREST, 2: InterpolationMode.BILINEAR, 3: InterpolationMode.BICUBIC}
"""From Pillow's number, as configurations have it."""

GREY_LEVELS = 1.5
"""Tolerance against torchvision, in levels of 255: a processor may round to whole levels once an axis."""


def by_torchvision(system: System, image: Image.Image) -> Array:
    """Preprocess as the catalog's configuration says, in float32 throughout."""
    says = system.preprocessor
    assert says["do_resize"] and says["do_rescale"] and says["do_normalize"]
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
    size = [says["size"]["height"], says["size"]["width"]]
    resized = tv.resize(values, size, INTERPOLATION[says["resample"]], antialias=True)
    mean, std = (torch.tensor(says[key])[:, None, None] for key in ("image_mean", "image_std"))
    return ((resized * says["rescale_factor"] - mean) / std).numpy()


def by_transformers(system: System, image: Image.Image) -> Array:
    """Preprocess with the processor's own class, its settings given by hand."""
    settings = dict(system.preprocessor)
    name = settings.pop("image_processor_type")
    factory = getattr(transformers, name, None) or getattr(transformers, name.removesuffix("Fast"))
    return np.asarray(factory(**settings)(images=image, return_tensors="pt")["pixel_values"][0])


def test_pixel_values_are_those_of_the_librarys_own_class(processor_folder: Path, system: System) -> None:
    image = natural_image(4)
    actual = preprocess(processor_folder, [image])
    assert np.array_equal(actual[0], by_transformers(system, image))


def test_pixel_values_are_those_of_torchvision(processor_folder: Path, system: System) -> None:
    image = natural_image(4)
    actual, expected = preprocess(processor_folder, [image])[0], by_torchvision(system, image)
    levels = np.abs(actual - expected) * np.array(system.preprocessor["image_std"])[:, None, None] * 255
    assert actual.shape == expected.shape
    assert levels.max() < GREY_LEVELS
    assert levels.mean() < 0.5


def test_the_tolerance_tells_the_right_interpolation_from_another(
    processor_folder: Path, system: System
) -> None:
    image = natural_image(4)
    other = 0 if system.preprocessor["resample"] != 0 else 2
    wrong = System(**{**vars(system), "preprocessor": {**system.preprocessor, "resample": other}})
    levels = np.abs(preprocess(processor_folder, [image])[0] - by_torchvision(wrong, image)) * 255 * 0.2
    assert levels.max() > 10 * GREY_LEVELS


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128), (1, 2, 3)])
def test_a_flat_colour_is_normalised_channel_by_channel(
    colour: tuple[int, int, int], processor_folder: Path, system: System
) -> None:
    actual = preprocess(processor_folder, [Image.new("RGB", (300, 200), colour)])[0]
    mean, std = (np.array(system.preprocessor[key]) for key in ("image_mean", "image_std"))
    expected = (np.array(colour) / 255 - mean) / std
    assert np.abs(actual - expected[:, None, None]).max() < 1e-5


@pytest.mark.parametrize("corner", ["left top", "right top", "left bottom"])
def test_an_image_is_neither_flipped_nor_turned(corner: str, processor_folder: Path) -> None:
    image = Image.new("RGB", (400, 300))
    left, top = 0 if "left" in corner else 300, 0 if "top" in corner else 225
    image.paste((255, 255, 255), (left, top, left + 100, top + 75))
    values = preprocess(processor_folder, [image])[0, 0]
    row, column = np.unravel_index(values.argmax(), values.shape)
    assert (column < values.shape[1] / 2) == ("left" in corner)
    assert (row < values.shape[0] / 2) == ("top" in corner)


def test_images_of_any_size_make_one_contiguous_float32_batch(processor_folder: Path, system: System) -> None:
    size = system.preprocessor["size"]
    images = [natural_image(0).resize(wh) for wh in ((40, 300), (224, 224), (511, 17))]
    actual = preprocess(processor_folder, images)
    assert actual.shape == (3, 3, size["height"], size["width"])
    assert actual.dtype == np.float32
    assert actual.flags.c_contiguous


def test_an_image_does_not_depend_on_its_neighbours(processor_folder: Path) -> None:
    images = natural_images(3, 0)
    together = preprocess(processor_folder, images)
    alone = np.concatenate([preprocess(processor_folder, [image]) for image in images])
    assert np.array_equal(together, alone)


def test_two_images_keep_their_order(processor_folder: Path) -> None:
    black, white = Image.new("RGB", (9, 9)), Image.new("RGB", (9, 9), (255, 255, 255))
    first, second = preprocess(processor_folder, [black, white])
    assert first.max() < second.min()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_an_image_of_another_mode_is_taken_as_rgb(mode: str, processor_folder: Path) -> None:
    image = natural_image(2).convert(mode)
    expected = preprocess(processor_folder, [image.convert("RGB")])
    assert np.array_equal(preprocess(processor_folder, [image]), expected)
