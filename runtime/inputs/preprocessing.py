"""Converts photographs to pixel values with the model's own image processor from its library."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vconv.artifact.artifact import read_config
from vconv.convert.libraries import timm_models
from vconv.convert.libraries.base import quiet, stock_transformers, understood
from vconv.convert.libraries.readers import find_reader
from vconv.errors import InputError
from vconv.runtime.inputs.pictures import QUIET_PILLOW, UnreadableError, upright
from vconv.types import CHANNELS, CONFIG_FILE, PREPROCESSOR_FILE, Array

Processor = Callable[[Sequence[Image.Image]], Array]
"""Turns images of any size into float32 (N, 3, H, W), upright, resized and normalised."""
_One = Callable[[Image.Image], Array]
"""Turns an upright image of one of the accepted modes into float32 (3, H, W)."""
_Normalisation = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation of each channel, for values from 0 to 1."""
_NONE: _Normalisation = ((0.0,) * CHANNELS, (1.0,) * CHANNELS)


def _stock_processor(folder: Path) -> Any:
    with stock_transformers() as transformers, quiet("transformers"):
        # If trust_remote_code is unset, it asks on the terminal whether to run code that the folder names.
        return transformers.AutoImageProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )


def _makes_rgb(stock: Any) -> bool:
    """Return whether a processor makes pictures RGB; some of version 4 ignore ``do_convert_rgb``."""
    options = getattr(getattr(stock, "valid_kwargs", None), "__annotations__", None)
    known = "do_convert_rgb" in (options or inspect.signature(stock.preprocess).parameters)
    return known and bool(getattr(stock, "do_convert_rgb", False))


def _transformers(folder: Path) -> _One:
    stock = _stock_processor(folder)
    makes_rgb = _makes_rgb(stock)

    def one(image: Image.Image) -> Array:
        given = image if makes_rgb else image.convert("RGB")  # as transformers' load_image does
        pixel_values: Array = stock(images=given, return_tensors="pt")["pixel_values"].numpy()[0]
        return pixel_values

    return one


def _transformers_normalisation(folder: Path) -> _Normalisation:
    stock = _stock_processor(folder)
    return (stock.image_mean, stock.image_std) if stock.do_normalize else _NONE


def _timm(folder: Path) -> _One:
    from timm.data import transforms_factory

    config = read_config(folder)
    create: Any = transforms_factory.create_transform
    transform: Any = create(**timm_models.preprocessing(config))
    return lambda image: transform(image.convert("RGB")).numpy()  # as timm's ImageDataset does


def _timm_normalisation(folder: Path) -> _Normalisation:
    settings = timm_models.preprocessing(read_config(folder))
    return settings["mean"], settings["std"]


@dataclass(frozen=True)
class _Library:
    """The functions and the file for the image processors of a library.

    Args:
        make: makes a folder's stock processor.
        normalisation: returns the mean and the standard deviation that the processor normalises with.
        file: the file that describes the processor.
    """

    make: Callable[[Path], _One]
    normalisation: Callable[[Path], _Normalisation]
    file: str


_PROCESSORS: Mapping[str, _Library] = {
    "transformers": _Library(_transformers, _transformers_normalisation, PREPROCESSOR_FILE),
    "timm": _Library(_timm, _timm_normalisation, CONFIG_FILE),
}
"""Library -> its image processors."""


def denormalised(folder: Path, pixel_values: Array) -> Array:
    """Turn pixel values back into pictures.

    Args:
        folder: a folder with the library's configuration files.
        pixel_values: float32 (N, 3, H, W), normalised by the folder's processor.

    Returns:
        uint8 (N, H, W, 3), in RGB.
    """
    normalisation = _PROCESSORS[find_reader(read_config(folder)).library].normalisation
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
        InputError: the library does not know the image processor. The processor raises this error too, if the
            library cannot run it, or if an image is too large, is of a mode that is refused, or is damaged.
    """
    library = find_reader(read_config(folder)).library
    known = _PROCESSORS[library]
    # Libraries find some faults only at the first image.
    understandable = functools.partial(understood, library, "image processor", known.file, InputError, folder)
    with understandable():
        one = known.make(folder)

    def process(images: Sequence[Image.Image]) -> Array:
        pixel_values = []
        for place, image in enumerate(images, 1):
            turned = _upright(image, place)
            with understandable(), QUIET_PILLOW:
                pixel_values.append(one(turned))
        with understandable():
            return np.ascontiguousarray(np.stack(pixel_values), dtype=np.float32)

    return process


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
