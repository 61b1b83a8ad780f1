"""Sessions of graphs that preprocess images themselves: they take uint8 images of any size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from vconv.convert.graphs.image_input import GREATEST_IMAGE_SIDE
from vconv.errors import InputError
from vconv.runtime.engines.base import FileSession, Session
from vconv.runtime.inputs.pictures import UnreadableError, upright
from vconv.surroundings import own_surroundings
from vconv.types import CHANNELS, Array


def as_levels(image: Image.Image) -> Array:
    """Return a picture as uint8 (H, W, 3), in RGB, upright by its EXIF orientation.

    Raises:
        UnreadableError: the picture is refused: see :func:`vconv.runtime.inputs.pictures.upright`.
    """
    levels: Array = np.ascontiguousarray(np.array(upright(image).convert("RGB"), np.uint8))
    return levels


class FromImagesSession(Session):
    """A graph with its preprocessing inside.

    Args:
        inner: the opened graph. It is closed with this session.
    """

    takes_images = True

    def __init__(self, inner: FileSession) -> None:
        super().__init__(inner.folder, inner.size, inner.batch)
        self.inner, self.engine, self.threads = inner, inner.engine, inner.threads
        self._closing.callback(inner.close)

    def bind(self, pixel_values: Array) -> Callable[[], Any]:
        """Put images on the device; return a function that only runs them.

        Args:
            pixel_values: images of one size, uint8 (B, H, W, 3), in RGB.
        """
        self._check_open()
        return self.inner.bind(pixel_values)

    def fetch(self, raw: Any) -> dict[str, Array]:
        """See :meth:`vconv.runtime.engines.base.Session.fetch`."""
        found = self.inner.fetch(raw)
        self.placed, self.fallbacks = self.inner.placed, self.inner.fallbacks
        return found

    @own_surroundings()
    def __call__(self, images: Array | Sequence[Image.Image]) -> dict[str, Array]:
        """Run images.

        Args:
            images: uint8 (B, H, W, 3), in RGB; or a list of PIL images of any sizes, which are turned upright
                and run one by one.

        Returns:
            Each output by name, with one row for each image.

        Raises:
            InputError: the images have a wrong shape or type, there are no images, the session is closed, or
                an image cannot be used.
        """
        self._check_open()
        if isinstance(images, Sequence) and not isinstance(images, str | bytes):
            return self.run_each([_levels(image, place) for place, image in enumerate(images, 1)])
        return self.run_each(list(_batch(np.asarray(images))))

    def run_each(self, pictures: Sequence[Array]) -> dict[str, Array]:
        """Run pictures, each uint8 (H, W, 3), one by one; return each output by name, with a row for each."""
        if not pictures:
            raise _unfit("no image")
        rows = [self.run(picture[None]) for picture in pictures]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def _levels(image: Any, place: int) -> Array:
    if not isinstance(image, Image.Image):
        raise _unfit(f"a list with a {type(image).__name__}")
    try:
        levels: Array = _batch(as_levels(image)[None])[0]
        return levels
    except UnreadableError as error:
        raise InputError(
            f"image {place} cannot be used", got=error.got, expected=error.expected, fix=error.fix
        ) from error


def _batch(images: Array) -> Array:
    sides = images.shape[1:3]
    whole = images.ndim == 4 and images.shape[3] == CHANNELS and images.dtype == np.uint8
    if not whole or not all(1 <= side <= GREATEST_IMAGE_SIDE for side in sides):
        raise _unfit(f"an array of {images.dtype} and shape {list(images.shape)}")
    return images


def _unfit(got: str) -> InputError:
    return InputError(
        "the images do not fit this variant",
        got=got,
        expected=f"uint8 [B, H, W, {CHANNELS}] in RGB, each side at most {GREATEST_IMAGE_SIDE}; "
        "or a list of PIL images",
        fix="this graph preprocesses images itself: pass them as they are",
    )
