"""An image processor as steps that NumPy and Pillow can do, from its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vconv.types import Config

_FILTERS = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of the filters that can be written down."""
_COMMON: Config = {
    **{"do_resize": True, "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True},
    **{"do_center_crop": False, "do_convert_rgb": False, "default_to_square": None, "crop_size": None},
}
_CLASSES: Mapping[str, Config] = {
    "DINOv3ViTImageProcessor": _COMMON,
    "ViTImageProcessor": _COMMON,
    "BitImageProcessor": {**_COMMON, "resample": 3, "do_center_crop": True, "do_convert_rgb": True},
}
"""By class in transformers, without *Fast*: what its settings are where they are not given."""
_FLOATING = "DINOv3ViTImageProcessor"
"""The class that rescales before it resizes."""
_BY_EDGE = "BitImageProcessor"
"""The class for which a size of one number is the length of the shortest edge; for others, it is of both."""
_NEUTRAL = (
    "image_processor_type",
    "feature_extractor_type",
    "processor_class",
    "data_format",
    "_valid_processor_keys",
)
"""Settings that change no value."""
_UNEXPECTED = "one that has another form than usual"
_TIMM = {"input_size", "interpolation", "crop_pct", "mean", "std"}


@dataclass(frozen=True)
class Recipe:
    """What an image processor does to a picture.

    Args:
        size: (height, width) of the result.
        scaled: (height, width) to resize to; or the length of the shortest edge.
        filter: ``bilinear`` or ``bicubic``.
        resizer: what resizes: ``pillow``; ``torch``, torchvision on whole numbers; or ``float``, torchvision
            on fractions.
        white: whether transparency is put on white; otherwise it is dropped.
        rounded: whether the place of the crop is rounded, as by torchvision; otherwise it is cut.
        factor: the factor to values from 0 to 1.
        mean: the mean of each channel.
        std: the standard deviation of each channel.
    """

    size: tuple[int, int]
    scaled: tuple[int, int] | int
    filter: str
    resizer: str
    white: bool
    rounded: bool
    factor: float
    mean: tuple[float, ...]
    std: tuple[float, ...]


class InexpressibleError(ValueError):
    """A processor that cannot be written down; the text names its settings."""


def recipe(library: str, settings: Config, size: tuple[int, int], classic: bool) -> Recipe:
    """Return what an image processor does.

    Args:
        library: the processor's library.
        settings: the content of ``preprocessor_config.json``; of a timm model, of ``config.json``.
        size: (height, width) that the network takes.
        classic: whether transformers is of version 4, whose processors of some classes resize with Pillow,
            and which drops transparency.

    Raises:
        InexpressibleError: a setting cannot be written down.
    """
    try:
        found = _of_timm(settings) if library == "timm" else _of_transformers(settings, classic)
    except KeyError as error:
        raise InexpressibleError(str(error.args[0])) from error
    except InexpressibleError:
        raise
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InexpressibleError(_UNEXPECTED) from error
    if found.size != size:
        raise InexpressibleError("size")
    least = found.scaled if isinstance(found.scaled, tuple) else (found.scaled, found.scaled)
    if any(edge < wanted for edge, wanted in zip(least, size, strict=True)):
        raise InexpressibleError("crop_size")
    return found


def _of_transformers(settings: Config, classic: bool) -> Recipe:
    kind = settings["image_processor_type"]
    name = kind.removesuffix("Fast")
    known = {**_CLASSES[name], "size": None, "image_mean": None, "image_std": None}
    strange = [key for key, value in settings.items() if value and key not in known and key not in _NEUTRAL]
    if strange:
        raise InexpressibleError(", ".join(strange))
    found = {**known, **{key: value for key, value in settings.items() if value is not None}}
    needed = ("do_resize", "do_rescale", "do_normalize")
    if lacking := [key for key in (*needed, "size", "image_mean", "image_std") if not found[key]]:
        raise InexpressibleError(", ".join(lacking))
    size = _square_or_edge(found["size"], name)
    scaled = size["shortest_edge"] if set(size) == {"shortest_edge"} else _sides(size)
    crop = _sides(found["crop_size"]) if found["do_center_crop"] else scaled
    if isinstance(crop, int):
        raise InexpressibleError("size")
    torch = "float" if name == _FLOATING else "torch"
    return Recipe(
        size=crop,
        scaled=scaled,
        filter=_FILTERS[found["resample"]],
        resizer="pillow" if classic and kind == name != _FLOATING else torch,
        white=bool(found["do_convert_rgb"]) and not classic,
        rounded=False,
        factor=float(found["rescale_factor"]),
        mean=_channels(found["image_mean"]),
        std=_channels(found["image_std"]),
    )


def _of_timm(settings: Config) -> Recipe:
    found = settings["pretrained_cfg"]
    if lacking := sorted(_TIMM - found.keys()):
        raise InexpressibleError(", ".join(lacking))
    _, height, width = found["input_size"]
    mode = found.get("crop_mode") or "center"
    if (mode, height == width) not in (("center", True), ("squash", True), ("squash", False)):
        raise InexpressibleError("crop_mode")
    if found["interpolation"] not in _FILTERS.values():
        raise InexpressibleError("interpolation")
    share = found["crop_pct"]
    scaled = int(height // share), int(width // share)
    return Recipe(
        size=(int(height), int(width)),
        scaled=scaled if mode == "squash" else scaled[0],
        filter=found["interpolation"],
        resizer="pillow",
        white=False,
        rounded=True,
        factor=1 / 255,
        mean=_channels(found["mean"]),
        std=_channels(found["std"]),
    )


def _square_or_edge(size: Any, name: str) -> Any:
    """Return a size with the names of its sides: what one number means depends on the class."""
    if not isinstance(size, int):
        return size
    return {"shortest_edge": size} if name == _BY_EDGE else {"height": size, "width": size}


def _sides(size: Any) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if set(size) != {"height", "width"}:
        raise InexpressibleError("size")
    return int(size["height"]), int(size["width"])


def _channels(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
