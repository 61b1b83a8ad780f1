"""Images to run variants on: photographs from files, or made-up images with a natural spectrum."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from PIL import Image

from vconv.errors import InputError
from vconv.printable import printable
from vconv.runtime.inputs.pictures import UnreadableError, open_picture
from vconv.types import Array, Say, silent

GREATEST_COUNT = 64
"""The most photographs of one run: their pixel values and all outputs are held in memory."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
"""The suffixes of images in a folder, in lower case; other files are left out, and this is said."""
_NAMED = 3
"""The number of files that are named where files are left out."""
NATURAL_SIZE = (384, 512)
"""Height and width of a made-up image, in pixels."""


@dataclass(frozen=True)
class Photographs(Sequence[Image.Image]):
    """Photographs in files, upright and in their own modes; only those that are asked for are in memory.

    Args:
        files: the files. Each access decodes one of them anew.
    """

    files: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, index: int) -> Image.Image: ...
    @overload
    def __getitem__(self, index: slice) -> Photographs: ...
    def __getitem__(self, index: int | slice) -> Image.Image | Photographs:
        """Return one photograph, or some that are not decoded yet.

        Raises:
            InputError: the photograph cannot be used.
        """
        if isinstance(index, slice):
            return Photographs(self.files[index])
        file = self.files[index]
        try:
            return open_picture(file)
        except UnreadableError as error:
            raise InputError(
                f"cannot use the image {file}", got=error.got, expected=error.expected, fix=error.fix
            ) from error


def open_images(paths: Iterable[str | Path], say: Say = silent, option: str = "--images") -> Photographs:
    """Find photographs, and decode each once to see that it can be used.

    Args:
        paths: files, or folders of files whose names end in one of :data:`SUFFIXES`.
        say: receives a line about the files of a folder that are left out.
        option: the option with which they were given, for messages.

    Raises:
        InputError: a path is missing, or is not a picture that can be used; or there are no images, or more
            than :data:`GREATEST_COUNT`.
    """
    paths = list(paths)
    for path in paths:
        _require_there(Path(path), option)
    files = tuple(file for path in map(Path, paths) for file in _files(path, say))
    if not files:
        raise InputError(
            f"no images in {option} {', '.join(map(str, paths))}",
            got="none",
            expected=f"at least one file whose name ends in {', '.join(SUFFIXES)}",
            fix="name image files, or a folder that holds some",
        )
    if len(files) > GREATEST_COUNT:
        raise InputError(
            f"{option} names too many images",
            got=len(files),
            expected=f"at most {GREATEST_COUNT}",
            fix="name some of them, or a folder with fewer",
        )
    found = Photographs(files)
    for _ in found:
        pass
    return found


def say_left_out(folder: str | Path, names: Sequence[str], say: Say) -> None:
    """Say which files of a folder are left out because their suffix is not one of :data:`SUFFIXES`."""
    if names:
        count = (
            "1 file of another suffix is"
            if len(names) == 1
            else f"{len(names):,} files of other suffixes are"
        )
        named = ", ".join(printable(" ".join(name.split())) for name in names[:_NAMED])
        say(f"{count} left out of {folder}: {named}{', ...' * (len(names) > _NAMED)}")


def _require_there(path: Path, option: str) -> None:
    try:
        path.stat()
    except FileNotFoundError as error:
        raise InputError(
            f"cannot use {option} {path}",
            got="no such file or folder",
            expected="an image, or a folder of images",
            fix="check the path",
        ) from error
    except OSError:
        return  # Whoever opens it tells the reason.


def _files(path: Path, say: Say) -> list[Path]:
    """Return the images of a folder, by their names; for anything else, the path itself."""
    if not path.is_dir():
        return [path]
    try:
        entries = sorted(path.iterdir())
        others = [one.name for one in entries if one.suffix.lower() not in SUFFIXES and not one.is_dir()]
    except OSError as error:
        raise InputError(
            f"cannot read the folder {path}",
            got=error.strerror or type(error).__name__,
            expected="a folder of images",
            fix="check the path and its permissions",
        ) from error
    say_left_out(path, others, say)
    return [one for one in entries if one.suffix.lower() in SUFFIXES]


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
    return Image.fromarray(_natural_levels(seed))


@functools.lru_cache(maxsize=8)  # one validation asks for the same few images again and again
def _natural_levels(seed: int) -> Array:
    """Return the levels (H, W, 3) of a made-up image; they cannot be changed."""
    height, width = NATURAL_SIZE
    generator = np.random.Generator(np.random.PCG64([seed, 1987]))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    phases = np.exp(2j * np.pi * generator.random((4, *frequency.shape)))
    planes = np.fft.irfft2(phases / frequency, s=NATURAL_SIZE)
    planes /= planes.std(axis=(1, 2), keepdims=True)
    channels = 0.9 * planes[:1] + 0.45 * planes[1:]
    pixels = np.clip(115.0 + 60.0 * channels, 0, 255).round().astype(np.uint8)
    levels = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    levels.flags.writeable = False
    return levels


def natural_images(count: int, seed: int) -> list[Image.Image]:
    """Make ``count`` images, from seeds ``seed``, ``seed + 1`` and so on."""
    return [natural_image(seed + index) for index in range(count)]
