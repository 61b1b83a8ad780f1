"""One picture: opened from a regular file, checked, and turned upright. The rules are in docs/pictures.md."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from vconv.printable import shortened
from vconv.regular_files import open_regular
from vconv.shared_setting import SharedSetting

MAX_PIXELS = 2**30 // 4 // 3
"""The most pixels of a picture, 89 million: Pillow warns of a larger picture as a decompression bomb."""
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
"""Pillow's modes that are accepted: they have 8 bits a channel at most, and Pillow converts them to RGB."""

_USABLE = "a picture that Pillow can read"
_CHECK = "check the path and the file"
_TO_8_BITS = 'Image.fromarray(numpy.interp(image, (LOW, HIGH), (0, 255)).round().astype("uint8"))'
_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (FileNotFoundError, "no such file"),
    (PermissionError, "no permission to read it"),
    (UnidentifiedImageError, "a file that Pillow does not recognise as a picture"),
)


class UnreadableError(Exception):
    """A picture that cannot be used.

    Args:
        got: the reason; it contains no path of this machine.
        expected: what is accepted.
        fix: what the user can do.
    """

    def __init__(self, got: str, expected: str = _USABLE, fix: str = _CHECK) -> None:
        super().__init__(got)
        self.got, self.expected, self.fix = got, expected, fix


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    logger = logging.getLogger("PIL")
    level = logger.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            logger.setLevel(level)


QUIET_PILLOW = SharedSetting(_without_warnings)
"""Keeps Pillow's warnings from being printed, and from being raised where warnings are errors."""


def open_picture(path: str | Path) -> Image.Image:
    """Open a picture from a regular file: upright, in its own mode.

    Raises:
        UnreadableError: it cannot be read, or is refused: see :func:`upright`.
    """
    with _reasons(), open_regular(path) as file, Image.open(file) as image:
        if image.format == "EPS":
            raise UnreadableError("an EPS file, which Pillow has another program draw")
        return _upright(image)


def upright(image: Image.Image) -> Image.Image:
    """Decode a picture and turn it upright by its EXIF orientation, as transformers' ``load_image`` does.

    Args:
        image: the picture; it is not changed. Where it was opened and not yet decoded, its size and mode are
            checked before.

    Returns:
        The picture in its own mode, one of :data:`MODES`.

    Raises:
        UnreadableError: it has more than :data:`MAX_PIXELS` or another mode, or cannot be decoded.
    """
    with _reasons():
        return _upright(image)


def _upright(image: Image.Image) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:
        megapixels = image.width * image.height / 1e6
        raise _too_large(f"{image.width} x {image.height}, which is {megapixels:.0f} megapixels")
    if image.mode not in MODES:
        raise UnreadableError(
            f"the mode {image.mode}, which has no exact form of 8 bits a channel",
            expected=f"one of the modes {', '.join(MODES)}",
            fix="convert it to LA"
            if image.mode == "La"
            else f"scale the levels that matter, LOW to HIGH, to 8 bits: {_TO_8_BITS}",
        )
    return ImageOps.exif_transpose(image)


def _too_large(got: str) -> UnreadableError:
    bound = f"{MAX_PIXELS / 1e6:.0f} megapixels at most"
    return UnreadableError(got, expected=bound, fix="make it smaller, or leave it out")


@contextlib.contextmanager
def _reasons() -> Iterator[None]:
    """Turn whatever Pillow raises into the reason why a picture cannot be used."""
    with QUIET_PILLOW:
        try:
            yield
        except (UnreadableError, MemoryError):
            raise
        except Image.DecompressionBombError as error:  # Pillow's own bound, which a program can set
            raise _too_large(_reason(error)) from error
        except Exception as error:  # for a damaged file, Pillow's readers may raise any exception
            raise UnreadableError(_reason(error)) from error


def _reason(error: Exception) -> str:
    told = next((reason for kind, reason in _REASONS if isinstance(error, kind)), None)
    said = shortened(f"{type(error).__name__}: {error}")
    return told or getattr(error, "strerror", None) or said
