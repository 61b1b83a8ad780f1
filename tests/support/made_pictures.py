"""Pictures of every mode that Pillow has, to preprocess or to refuse."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping

from PIL import Image

from vconv.runtime.inputs.images import natural_image

ORIENTATION = 0x0112
"""The number of the EXIF tag."""
TURNED = 6
"""The orientation of a picture that is shown turned by 90 degrees clockwise."""
WIDE = (90, 60)


def colours() -> Image.Image:
    return _colours().copy()


@functools.cache
def _colours() -> Image.Image:
    return natural_image(2).resize(WIDE)


def veiled(mode: str) -> Image.Image:
    """Return a picture whose left is transparent, its middle half so, and its right opaque."""
    picture = colours().convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").rotate(90).resize(WIDE))
    if mode == "PA":
        solid = colours().quantize(64).convert("PA")
        solid.putalpha(picture.getchannel("A"))
        return solid
    return picture.convert(mode)


def with_transparent(picture: Image.Image, transparency: object) -> Image.Image:
    """Return a picture with a transparent colour, as a PNG's tRNS chunk tells it."""
    picture.info["transparency"] = transparency
    return reopened(picture, "PNG")


def reopened(picture: Image.Image, format: str) -> Image.Image:
    """Save a picture, turned by its EXIF orientation, and open it again; it keeps its mode."""
    file = io.BytesIO()
    exif = Image.Exif()
    exif[ORIENTATION] = TURNED
    picture.save(file, format, exif=exif)
    opened = Image.open(file)
    assert opened.mode == picture.mode
    return opened


def turned(picture: Image.Image) -> Image.Image:
    """Give a picture in memory an EXIF orientation: not every version of Pillow opens a file of its mode."""
    picture.getexif()[ORIENTATION] = TURNED
    return picture


def grey(mode: str) -> Image.Image:
    return colours().convert("L").convert("I").convert(mode)


ACCEPTED: Mapping[str, Callable[[], Image.Image]] = {
    "1": lambda: reopened(colours().convert("1"), "PNG"),
    "L": lambda: reopened(colours().convert("L"), "PNG"),
    "L, a transparent level": lambda: with_transparent(colours().convert("L"), 128),
    "LA": lambda: reopened(veiled("LA"), "PNG"),
    "P": lambda: reopened(colours().quantize(64), "PNG"),
    "P, a transparent colour": lambda: with_transparent(colours().quantize(64), 3),
    "P, levels of alpha": lambda: with_transparent(colours().quantize(64), bytes(range(0, 256, 4))),
    "PA": lambda: reopened(veiled("PA"), "TIFF"),
    "RGB": lambda: reopened(colours(), "PNG"),
    "RGB, a transparent colour": lambda: with_transparent(colours(), colours().getpixel((0, 0))),
    "RGBA": lambda: reopened(veiled("RGBA"), "PNG"),
    "RGBa": lambda: turned(veiled("RGBa")),
    "RGBX": lambda: turned(colours().convert("RGBX")),
    "CMYK": lambda: reopened(colours().convert("CMYK"), "JPEG"),
    "YCbCr": lambda: turned(colours().convert("YCbCr")),
    "LAB": lambda: reopened(colours().convert("LAB"), "TIFF"),
    "HSV": lambda: turned(colours().convert("HSV")),
}
REFUSED: Mapping[str, Callable[[], Image.Image]] = {
    "I;16": lambda: reopened(grey("I;16"), "PNG"),
    "I;16B": lambda: reopened(grey("I;16B"), "TIFF"),
    "I;16L": lambda: turned(grey("I;16L")),
    "I;16N": lambda: turned(grey("I;16N")),
    "I": lambda: reopened(grey("I"), "TIFF"),
    "F": lambda: reopened(grey("F"), "TIFF"),
    "La": lambda: turned(veiled("La")),
}
