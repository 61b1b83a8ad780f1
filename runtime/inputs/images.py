"""Images to run variants on: photographs from files, or made-up images with a natural spectrum."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vconv.errors import InputError

GREATEST_COUNT = 64
"""The most photographs that can be opened at once: all of them are held in memory."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
"""The suffixes of images in a folder, in lower case; other files are ignored."""
NATURAL_SIZE = (384, 512)
"""Height and width of a made-up image, in pixels."""


class Photographs(list[Image.Image]):
    """Photographs in memory, with their ``files``."""

    files: tuple[Path, ...] = ()


def upright(file: Path | IO[bytes]) -> Image.Image:
    """Open one photograph as RGB, upright.

    Raises:
        Image.DecompressionBombError: the image is too large for a photograph.
        OSError: the file is not an image, or cannot be read. For a damaged file, Pillow may raise others too.
    """
    with Image.open(file) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def open_images(paths: Iterable[str | Path]) -> Photographs:
    """Open photographs as RGB, upright.

    Args:
        paths: files, or folders of files with names that end in .png, .jpg, .jpeg or .webp.

    Raises:
        InputError: a path is missing, is not an image or is too large for a photograph; or there are no
            images, or more than :data:`GREATEST_COUNT`.
    """
    paths = list(paths)
    files: list[Path] = []
    for path in map(Path, paths):
        files += (
            sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
            if path.is_dir()
            else [path]
        )
    if not files:
        raise InputError(
            f"no images in {', '.join(map(str, paths))}",
            got="none",
            expected="at least one .png, .jpg, .jpeg or .webp",
            fix="name image files, or a folder that holds some",
        )
    if len(files) > GREATEST_COUNT:
        raise InputError(
            "there are too many images",
            got=len(files),
            expected=f"at most {GREATEST_COUNT}",
            fix="name some of them, or a folder with fewer",
        )
    images = Photographs()
    images.files = tuple(files)
    for file in files:
        try:
            images.append(upright(file))
        except Image.DecompressionBombError as error:
            raise InputError(
                f"the image {file} is too large",
                got=" ".join(str(error).split()),
                expected="a photograph",
                fix="make it smaller, or leave it out",
            ) from error
        except (OSError, UnidentifiedImageError) as error:
            raise InputError(
                f"cannot read the image {file}",
                got="not an image that can be read" if file.exists() else "no such file",
                expected="an image file",
                fix="check the path and the file",
            ) from error
    return images


def require_seed(seed: int) -> None:
    """Check that a seed is valid.

    Raises:
        InputError: the seed is negative.
    """
    if seed < 0:
        raise InputError(
            "the seed is out of range", got=seed, expected="0 or more", fix="give a whole number"
        )


def natural_image(seed: int) -> Image.Image:
    """Make an image whose amplitude falls as 1 / frequency, as in natural scenes.

    The exponent is from Field (1987, J. Opt. Soc. Am. A 4(12), 2379). The three channels share most of their
    luminance. The same seed always gives the same image.

    Args:
        seed: 0 or greater.

    Returns:
        An RGB image of :data:`NATURAL_SIZE`.

    Raises:
        InputError: the seed is negative.
    """
    require_seed(seed)
    height, width = NATURAL_SIZE
    generator = np.random.Generator(np.random.PCG64([seed, 1987]))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    phases = np.exp(2j * np.pi * generator.random((4, *frequency.shape)))
    planes = np.fft.irfft2(phases / frequency, s=NATURAL_SIZE)
    planes /= planes.std(axis=(1, 2), keepdims=True)
    channels = 0.9 * planes[:1] + 0.45 * planes[1:]
    pixels = np.clip(115.0 + 60.0 * channels, 0, 255).round().astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def natural_images(count: int, seed: int) -> list[Image.Image]:
    """Make ``count`` images, from seeds ``seed``, ``seed + 1`` and so on."""
    return [natural_image(seed + index) for index in range(count)]
