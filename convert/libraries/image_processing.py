"""What a folder's image processor does to a picture, as data: resize, crop, rescale, normalise.

The data are read from the processor that the library itself makes, so that the library's defaults count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from vconv.convert.libraries import timm_described
from vconv.convert.libraries.base import quiet, stock_transformers
from vconv.errors import InputError
from vconv.types import CHANNELS, PREPROCESSOR_FILE, Config

Normalisation = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation of each channel, for values from 0 to 1."""
UNCHANGED: Normalisation = ((0.0,) * CHANNELS, (1.0,) * CHANNELS)
"""The normalisation that leaves values as they are."""


class Filter(StrEnum):
    """The filter of a resize. All of them are widened by the scale when an image shrinks (antialiasing)."""

    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"


class Start(StrEnum):
    """How the start of a crop of the centre is rounded, if the number of pixels left over is odd."""

    DOWN = "down"
    """transformers."""
    HALF_TO_EVEN = "half to even"
    """torchvision, and so timm."""


@dataclass(frozen=True)
class Resize:
    """The first step: a resize.

    Args:
        sides: (height, width) of the result; or one number, the shorter side, where the ratio of the sides
            stays.
        filter: the filter.
        whole_levels: whether each of the two passes, over rows and over columns, rounds to whole grey levels,
            as PIL and torch do for uint8 images.
    """

    sides: tuple[int, int] | int
    filter: Filter
    whole_levels: bool


@dataclass(frozen=True)
class ImageProcessing:
    """The steps of an image processor, in order.

    Args:
        resize: the resize; None to leave the size as it is.
        crop: (height, width) of the part that is cut from the centre; None to keep the whole.
        start: how the start of the crop is rounded.
        factor: the factor of the grey levels.
        mean: the mean of each channel, which is subtracted.
        std: the standard deviation of each channel, by which the difference is divided.
    """

    resize: Resize | None
    crop: tuple[int, int] | None
    start: Start
    factor: float
    mean: tuple[float, ...]
    std: tuple[float, ...]


def stock_processor(folder: Path) -> Any:
    """Return the image processor that transformers makes of a folder."""
    with stock_transformers() as transformers, quiet("transformers"):
        # If trust_remote_code is unset, it asks on the terminal whether to run code that the folder names.
        return transformers.AutoImageProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )


def stock_transform(config: Config) -> Any:
    """Return the transform that timm makes for the model of a ``config.json``."""
    from timm.data import transforms_factory

    create: Any = transforms_factory.create_transform
    return create(**timm_described.preprocessing(config))


_SCALED_FIRST = "DINOv3ViTImageProcessor"
"""The class in transformers that rescales before it resizes, so that no grey level is rounded."""
_LATER_STEPS = ("do_pad", "do_reduce_labels", "do_convert_grayscale", "do_flip_channel_order", "do_thumbnail")
"""Switches of transformers for steps that are not known here."""


def of_transformers(folder: Path, config: Config) -> ImageProcessing:
    """Read the steps of a folder's processor of transformers.

    Raises:
        InputError: it has a step that cannot be put into a graph.
    """
    stock = stock_processor(folder)
    further = [name for name in _LATER_STEPS if getattr(stock, name, None)]
    if further:
        raise _unknown(f"{further[0]} in {PREPROCESSOR_FILE}")
    resize = None
    if stock.do_resize:
        whole = not type(stock).__name__.startswith(_SCALED_FIRST)
        resize = Resize(_sides(dict(stock.size)), _pillow_filter(stock.resample), whole)
    crop = None
    if getattr(stock, "do_center_crop", False):
        size = dict(stock.crop_size)
        crop = (int(size["height"]), int(size["width"]))
    mean, std = (stock.image_mean, stock.image_std) if stock.do_normalize else UNCHANGED
    factor = float(stock.rescale_factor) if stock.do_rescale else 1.0
    return ImageProcessing(resize, crop, Start.DOWN, factor, tuple(mean), tuple(std))


def _sides(size: Mapping[str, Any]) -> tuple[int, int] | int:
    given = {name: side for name, side in size.items() if side is not None}
    if given.keys() == {"height", "width"}:
        return int(given["height"]), int(given["width"])
    if given.keys() == {"shortest_edge"}:
        return int(given["shortest_edge"])
    raise _unknown(f"size = {given} in {PREPROCESSOR_FILE}")


def _pillow_filter(resample: Any) -> Filter:
    from PIL.Image import Resampling

    return _filter(Resampling(int(resample)).name)


def _filter(name: str) -> Filter:
    try:
        return Filter(name.lower())
    except ValueError:
        raise _unknown(f"the filter {name.lower()}") from None


def of_timm(folder: Path, config: Config) -> ImageProcessing:
    """Read the steps of the transform that timm makes for the model of a ``config.json``.

    Raises:
        InputError: it has a step that cannot be put into a graph.
    """
    steps = list(stock_transform(config).transforms)
    resize = crop = None
    mean, std = UNCHANGED
    for step in steps:
        kind = type(step).__name__
        if kind == "Resize" and resize is None and step.max_size is None:
            sides = [step.size] if isinstance(step.size, int) else list(map(int, step.size))
            whole = (sides[0], sides[1]) if len(sides) == 2 else sides[0]
            resize = Resize(whole, _filter(step.interpolation.value), whole_levels=True)
        elif kind == "CenterCrop" and crop is None:
            crop = (int(step.size[0]), int(step.size[1]))
        elif kind == "Normalize":
            mean, std = (tuple(map(float, given)) for given in (step.mean, step.std))
        elif kind != "MaybeToTensor":
            raise _unknown(f"{kind} in timm's transform")
    return ImageProcessing(resize, crop, Start.HALF_TO_EVEN, 1 / 255, tuple(mean), tuple(std))


def _unknown(step: str) -> InputError:
    known = f"a resize ({', '.join(Filter)}), a crop of the centre, a factor, a mean and a standard deviation"
    return InputError(
        "this preprocessing cannot be put into a graph",
        got=step,
        expected=known,
        fix="leave --with-preprocessing out, and preprocess images with the library or with vconv.load",
    )


IMAGE_PROCESSING: Mapping[str, Callable[[Path, Config], ImageProcessing]] = {
    "transformers": of_transformers,
    "timm": of_timm,
}
"""Library -> the function that reads the steps from a folder and its ``config.json``."""
