"""The pixel values of a library's processor, had it resampled along rows first, as a graph does.

A resize is two passes, along the rows and along the columns, and each rounds to whole grey levels and clips
them. From version 13 on, Pillow begins with the columns where that is cheaper, which depends on the sides of
the image. Older versions, and torch, always begin with the rows. A bicubic pixel near an edge may then differ
by ten levels, because the first pass clips what the second would have taken back.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from vconv.convert.libraries.image_processing import ImageProcessing, Resize, Start
from vconv.types import Array

MEAN_LEVELS, GREATEST_LEVELS = 0.1, 3.0
"""Greatest difference of the same steps in the same order, in levels of 255, on average and at one pixel.

A library computes filters in 8, 16 or 22 bits, and rounds after each pass. On five processors, with the
oldest and the newest libraries, the mean was at most 0.012, and 2 at one pixel. With the passes in another
order, the mean was at least 0.19.
"""


@dataclass(frozen=True)
class Expected:
    """What a graph that preprocesses an image must give.

    Args:
        pixel_values: float32 (1, 3, H, W), of the library's processor, with the rows first.
        reordered: how far those of the processor itself are from them, in levels: on average, and at most.
            Both are 0 where it begins with the rows.
    """

    pixel_values: Array
    reordered: tuple[float, float] = (0.0, 0.0)


def levels_apart(found: Array, expected: Array, steps: ImageProcessing) -> Array:
    """Return how far two batches of pixel values (N, 3, H, W) are apart, in grey levels."""
    std = np.reshape(np.array(steps.std), (1, -1, 1, 1))
    difference: Array = np.abs(found - expected) * std / steps.factor
    return difference


def is_near(apart: Array) -> bool:
    """Return whether a difference in levels is within the tolerance of one order."""
    return bool(apart.mean() <= MEAN_LEVELS and apart.max() <= GREATEST_LEVELS)


def rows_first(picture: Image.Image, processed: Array, steps: ImageProcessing) -> Expected:
    """Return the pixel values that a processor gives of a picture where it resamples the rows first.

    Pillow does the steps by itself, once as it likes, and once with the rows first. If the first is what the
    processor gave, the processor resizes with Pillow, and the second is what it gives in the other order.

    Args:
        picture: RGB.
        processed: what the library's processor makes of it, float32 (1, 3, H, W).
        steps: the steps of the processor.
    """
    if steps.resize is None or not steps.resize.whole_levels:
        return Expected(processed)
    width, height = _resized(picture, steps.resize)
    resample = Image.Resampling[steps.resize.filter.name]
    own = picture.resize((width, height), resample)
    ordered = picture.resize((width, picture.height), resample).resize((width, height), resample)
    made, wanted = (_pixel_values(image, steps) for image in (own, ordered))
    if made.shape != processed.shape or not is_near(levels_apart(made, processed, steps)):
        return Expected(processed)
    apart = levels_apart(wanted, made, steps)
    return Expected(wanted, (float(apart.mean()), float(apart.max()))) if apart.any() else Expected(processed)


def _resized(picture: Image.Image, resize: Resize) -> tuple[int, int]:
    """Return the width and the height after a resize."""
    if isinstance(resize.sides, tuple):
        return resize.sides[1], resize.sides[0]
    shorter = min(picture.size)
    return resize.sides * picture.width // shorter, resize.sides * picture.height // shorter


def _pixel_values(image: Image.Image, steps: ImageProcessing) -> Array:
    """Crop and normalise an image that is resized."""
    levels = np.asarray(image, np.float32)
    if steps.crop:
        top, left = (
            _start(side - kept, steps.start) for side, kept in zip(levels.shape, steps.crop, strict=False)
        )
        levels = levels[top : top + steps.crop[0], left : left + steps.crop[1]]
    normal = (levels * steps.factor - np.array(steps.mean)) / np.array(steps.std)
    pixel_values: Array = normal.transpose(2, 0, 1)[None].astype(np.float32)
    return pixel_values


def _start(over: int, start: Start) -> int:
    """Return where a crop of the centre starts, by the number of pixels that are left over."""
    return over // 2 if start is Start.DOWN else round(over / 2)
