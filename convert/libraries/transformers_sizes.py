"""transformers: the size of images, in configurations and in calls of a model."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from torch import Tensor, nn

from vconv.convert.libraries.transformers_config import sides
from vconv.errors import InputError
from vconv.types import PREPROCESSOR_FILE, Config

_ASK = "interpolate_pos_encoding"
"""The argument that asks a model to resample its position embedding for the size of the images."""
_LEARNED = "position_embed"
"""Part of the name of every learned position embedding that this argument is for."""
_SIDE = "image_size"
"""The entry of a configuration with the size that the position embedding is stored for."""
_SQUARE = "crop_pct"
"""The setting of processors of ConvNeXt's kind, which make squares unless they have a size of the crop."""


def unasked_size(model: Any) -> tuple[int, int] | None:
    """Return the one size of images for which a model need not be asked to resample its positions.

    None if it is never asked: it has no learned position embedding, or no argument to ask it with.
    """
    stock: nn.Module = model
    learned = any(_LEARNED in name for name, _ in stock.named_parameters())
    config: Config = model.config.to_dict()
    if not learned or _SIDE not in config or _ASK not in inspect.signature(stock.forward).parameters:
        return None
    return sides(config, _SIDE)


def asking(own: tuple[int, int] | None, pixel_values: Tensor) -> Mapping[str, bool]:
    """Return the arguments with which a model takes images of their size; ``own`` is the unasked size."""
    size = tuple(pixel_values.shape[2:])
    if own is None or (all(isinstance(side, int) for side in size) and size == own):
        return {}
    return {_ASK: True}


def image_size(config: Config, preprocessor: Config) -> tuple[int, int]:
    """Return the (height, width) of the images that the processor makes.

    Raises:
        InputError: its settings give none.
    """
    cropped = _cropped(preprocessor)
    given = cropped or preprocessor.get("size", {})
    if given == {}:
        return sides(config, "image_size")
    if isinstance(given, Mapping) and _SQUARE in preprocessor and not cropped:
        given = given.get("shortest_edge")
    both: list[Any] = [given.get("height"), given.get("width")] if isinstance(given, Mapping) else [given] * 2
    if not all(isinstance(side, int) for side in both):
        raise InputError(
            "the preprocessing does not give a valid image size",
            got=repr(given),
            expected="a height and a width",
            fix=f"set size, or crop_size, to {{height, width}} in {PREPROCESSOR_FILE}",
        )
    return both[0], both[1]


def resized(config: Config, preprocessor: Config, size: tuple[int, int] | None) -> tuple[Config, Config]:
    """Set the size of the images that the processor makes.

    If it resizes the shorter side and then crops, the two keep their ratio for the longer side of the crop.
    """
    if size is None:
        return config, preprocessor
    sides, scaled = dict(zip(("height", "width"), size, strict=True)), preprocessor.get("size")
    if not _cropped(preprocessor):
        made = {"shortest_edge": _side(size)} if _SQUARE in preprocessor else sides
        return config, {**preprocessor, "size": made}
    ratio = max(Fraction(new, old) for new, old in zip(size, image_size(config, preprocessor), strict=True))

    def grown(number: Any) -> Any:
        return math.ceil(number * ratio) if isinstance(number, int) else number

    plain = {name: grown(side) for name, side in scaled.items()} if isinstance(scaled, Mapping) else None
    return config, {**preprocessor, "size": plain or grown(scaled), "crop_size": sides}


def resized_beyond(
    config: Config, preprocessor: Config, size: tuple[int, int]
) -> Iterator[tuple[Config, Config]]:
    """Yield both configurations for a size: the model's stays, because transformers is asked in the call."""
    yield resized(config, preprocessor, size)


def _cropped(preprocessor: Config) -> Any:
    return preprocessor.get("do_center_crop") and preprocessor.get("crop_size")


def _side(size: tuple[int, int]) -> int:
    height, width = size
    if height != width:
        raise InputError(
            "--size does not fit the image processor",
            got=f"{height},{width}",
            expected="a square: this processor of transformers makes no other images",
            fix=f"give --size {height},{height} or --size {width},{width}",
        )
    return height


def stored_for(config: Config, size: tuple[int, int]) -> dict[str, Any] | None:
    """Set the size of the position embedding, which transformers resamples from a square."""
    return {**config, "image_size": size[0]} if size[0] == size[1] else None
