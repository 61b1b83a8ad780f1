"""What a processor gives with the rows first, beside Pillow's own resizes, one axis at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from vconv.convert.libraries.image_processing import Filter, ImageProcessing, Resize, Start
from vconv.types import Array
from vconv.validators.checks.image_input import probes
from vconv.validators.checks.pass_order import is_near, levels_apart, rows_first

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
STEPS = ImageProcessing(
    Resize(224, Filter.BICUBIC, whole_levels=True), (224, 200), Start.HALF_TO_EVEN, 1 / 255, MEAN, STD
)
TALL, LONG = probes()[1], probes()[0]
SIZES = {"tall": (TALL, (224, 763)), "long": (LONG, (349, 224))}
"""Pictures of 1023x300 and 331x517, and their width and height where the shorter side is 224."""


def cropped(image: Image.Image) -> Array:
    """Cut 224 rows and 200 columns from the centre, as torchvision does, and normalise them."""
    top, left = round((image.height - 224) / 2), round((image.width - 200) / 2)
    levels = np.asarray(image, np.float64)[top : top + 224, left : left + 200]
    pixel_values: Array = ((levels / 255 - MEAN) / STD).transpose(2, 0, 1)[None].astype(np.float32)
    return pixel_values


def in_passes(picture: Image.Image, size: tuple[int, int], first: tuple[int, int]) -> Image.Image:
    return picture.resize(first, Image.Resampling.BICUBIC).resize(size, Image.Resampling.BICUBIC)


@pytest.mark.parametrize("kind", SIZES)
def test_what_pillow_gives_is_put_in_the_order_of_the_graph(kind: str) -> None:
    picture, size = SIZES[kind]
    processed = cropped(picture.resize(size, Image.Resampling.BICUBIC))
    expected = cropped(in_passes(picture, size, (size[0], picture.height)))
    found = rows_first(picture, processed, STEPS)
    np.testing.assert_allclose(found.pixel_values, expected, rtol=0, atol=1e-5)
    apart = np.abs(processed - expected) * np.reshape(STD, (1, 3, 1, 1)) * 255
    assert found.reordered == pytest.approx((apart.mean(), apart.max()), abs=1e-3)
    assert is_near(levels_apart(found.pixel_values, expected, STEPS))


def test_the_other_order_is_not_near() -> None:
    picture, size = SIZES["tall"]
    one, other = (
        cropped(in_passes(picture, size, first))
        for first in ((size[0], picture.height), (picture.width, size[1]))
    )
    assert not is_near(levels_apart(one, other, STEPS))


@pytest.mark.parametrize("kind", SIZES)
def test_what_a_processor_gives_with_the_rows_first_stays(kind: str) -> None:
    picture, size = SIZES[kind]
    processed = cropped(in_passes(picture, size, (size[0], picture.height)))
    found = rows_first(picture, processed, STEPS)
    np.testing.assert_allclose(found.pixel_values, processed, rtol=0, atol=1e-5)


OTHERS = {
    "another filter": replace(STEPS, resize=Resize(224, Filter.LANCZOS, whole_levels=True)),
    "another crop": replace(STEPS, crop=(200, 224)),
    "another start": replace(STEPS, start=Start.DOWN),
    "another mean": replace(STEPS, mean=(0.5, 0.4, 0.31)),
    "no rounding": replace(STEPS, resize=Resize(224, Filter.BICUBIC, whole_levels=False)),
    "no resize": replace(STEPS, resize=None),
}
"""Steps that are not those of the processor: they correct nothing, so that the fault is seen."""


@pytest.mark.parametrize("other", OTHERS)
def test_other_steps_than_the_processors_correct_nothing(other: str) -> None:
    picture, size = SIZES["tall"]
    processed = cropped(picture.resize(size, Image.Resampling.BICUBIC))
    found = rows_first(picture, processed, OTHERS[other])
    assert found.pixel_values is processed
    assert found.reordered == (0.0, 0.0)
