"""Converts photographs to pixel values with the model's own image processor from its library."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vconv.artifact.artifact import read_config
from vconv.convert.libraries import timm_described
from vconv.convert.libraries.base import understood
from vconv.convert.libraries.image_processing import (
    UNCHANGED,
    Normalisation,
    stock_processor,
    stock_transform,
)
from vconv.convert.libraries.readers import library_of_config
from vconv.errors import InputError
from vconv.printable import shortened
from vconv.runtime.inputs.pictures import QUIET_PILLOW, UnreadableError, upright
from vconv.types import CONFIG_FILE, PREPROCESSOR_FILE, Array

Processor = Callable[[Sequence[Image.Image]], Array]
"""Turns images of any size into float32 (N, 3, H, W), upright, resized and normalised."""
_One = Callable[[Image.Image], Array]
"""Turns an upright image of one of the accepted modes into float32 (3, H, W)."""


def _makes_rgb(stock: Any) -> bool:
    """Return whether a processor makes pictures RGB; some of version 4 ignore ``do_convert_rgb``."""
    options = getattr(getattr(stock, "valid_kwargs", None), "__annotations__", None)
    known = "do_convert_rgb" in (options or inspect.signature(stock.preprocess).parameters)
    return known and bool(getattr(stock, "do_convert_rgb", False))


def _transformers(folder: Path) -> tuple[_One, Normalisation]:
    stock = stock_processor(folder)
    makes_rgb = _makes_rgb(stock)

    def one(image: Image.Image) -> Array:
        given = image if makes_rgb else image.convert("RGB")  # as transformers' load_image does
        pixel_values: Array = stock(images=given, return_tensors="pt")["pixel_values"].numpy()[0]
        return pixel_values

    return one, (stock.image_mean, stock.image_std) if stock.do_normalize else UNCHANGED


def _timm(folder: Path) -> tuple[_One, Normalisation]:
    config = read_config(folder)
    settings, transform = timm_described.preprocessing(config), stock_transform(config)

    def one(image: Image.Image) -> Array:
        pixel_values: Array = transform(image.convert("RGB")).numpy()  # as timm's ImageDataset does
        return pixel_values

    return one, (settings["mean"], settings["std"])


@dataclass(frozen=True)
class _Library:
    """The functions and the file for the image processors of a library.

    Args:
        make: makes a folder's stock processor, and returns the mean and the standard deviation that it
            normalises with.
        file: the file that describes the processor.
        mean: the entry of the file for the mean.
        std: the entry of the file for the standard deviation.
    """

    make: Callable[[Path], tuple[_One, Normalisation]]
    file: str
    mean: str
    std: str


_PROCESSORS: Mapping[str, _Library] = {
    "transformers": _Library(_transformers, PREPROCESSOR_FILE, "image_mean", "image_std"),
    "timm": _Library(_timm, CONFIG_FILE, "mean", "std"),
}
"""Library -> its image processors."""


def normalisation(folder: Path) -> Normalisation:
    """Return the mean and the standard deviation with which a folder's image processor normalises.

    Args:
        folder: a folder with the library's configuration files.
    """
    return _PROCESSORS[library_of_config(read_config(folder))].make(folder)[1]


def denormalised(folder: Path, pixel_values: Array) -> Array:
    """Turn pixel values back into pictures.

    Args:
        folder: a folder with the library's configuration files.
        pixel_values: float32 (N, 3, H, W), normalised by the folder's processor.

    Returns:
        uint8 (N, H, W, 3), in RGB.
    """
    mean, deviation = (np.array(values, np.float64) for values in normalisation(folder))
    shares = pixel_values.transpose(0, 2, 3, 1) * deviation + mean
    pictures: Array = np.rint(255 * shares.clip(0.0, 1.0)).astype(np.uint8)
    return pictures


def load_processor(folder: Path) -> Processor:
    """Make a folder's image processor, which processes images exactly as the stock library does.

    It turns each image upright by its EXIF orientation. A stock processor that makes images RGB by itself
    gets the image in its own mode; any other gets it as RGB, as the library's own loading makes it.

    Args:
        folder: a folder with the library's configuration files.

    Raises:
        InputError: the library does not know the image processor, or its mean or standard deviation is not
            possible. The processor raises this error too, if the library cannot run it, or if an image is too
            large, is of a mode that is refused, or is damaged.
    """
    library = library_of_config(read_config(folder))
    known = _PROCESSORS[library]
    # Libraries find some faults only at the first image.
    understandable = functools.partial(understood, library, "image processor", known.file, InputError, folder)
    with understandable():
        one, normalisation = known.make(folder)
    _require_possible(known, normalisation)

    def process(images: Sequence[Image.Image]) -> Array:
        pixel_values = []
        for place, image in enumerate(images, 1):
            turned = _upright(image, place)
            with understandable(), QUIET_PILLOW:
                pixel_values.append(one(turned))
        with understandable():
            return np.ascontiguousarray(np.stack(pixel_values), dtype=np.float32)

    return process


def _require_possible(library: _Library, normalisation: Normalisation) -> None:
    """Check that each mean is a finite number, and each standard deviation one above 0."""
    for entry, values, least, expected in (
        (library.mean, normalisation[0], -math.inf, "finite numbers"),
        (library.std, normalisation[1], 0.0, "finite numbers above 0"),
    ):
        numbers = np.ravel(np.array(values, dtype=object)).tolist()
        if not all(isinstance(one, int | float) and least < one < math.inf for one in numbers):
            raise InputError(
                f"{library.file} describes an image processor that cannot be",
                got=f"{entry} = {shortened(str(numbers))}",
                expected=expected,
                fix=f"give {entry} as the {library.file} does that was published with the weights",
            )


def _upright(image: Image.Image, place: int) -> Image.Image:
    try:
        return upright(image)
    except UnreadableError as error:
        raise InputError(
            f"image {place} cannot be used", got=error.got, expected=error.expected, fix=error.fix
        ) from error


def preprocess(folder: Path, images: Sequence[Image.Image]) -> Array:
    """Turn images into a batch: see :func:`load_processor`."""
    return load_processor(folder)(images)
