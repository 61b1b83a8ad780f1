"""timm: the size of images in a configuration, and the options by which a network takes another one.

A network takes another size by one of timm's own options, or as it is. The options are in ``model_args`` of
the artifact's ``config.json``, so that stock timm builds the same network.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from vconv.convert.libraries import timm_features
from vconv.convert.libraries.timm_described import describe, preprocessing, switched
from vconv.errors import WeightsError
from vconv.types import CHANNELS, Config

_FIXED = "fixed_input_size"
"""The entry of timm's settings that says that a network is built for one size."""
_BUILT_FOR = "img_size"
"""The argument of the constructor that is this size."""
_Way = Callable[[Any, tuple[int, int]], dict[str, Any]]
"""Returns ``model_args`` for (height, width) from the model as it came."""


def _dynamic(stock: Any, size: tuple[int, ...] = ()) -> dict[str, Any]:
    """Let timm resample the positions whenever the model runs: ``img_size`` is that of the weights."""
    return {"dynamic_img_size": True, _BUILT_FOR: list(stock.patch_embed.img_size)}


def _built(stock: Any, size: tuple[int, int]) -> dict[str, Any]:
    return {_BUILT_FOR: list(size)}


def _as_it_is(stock: Any, size: tuple[int, int]) -> dict[str, Any]:
    return {}


WAYS: Mapping[str, _Way] = {"strict_img_size": _built, "dynamic_img_size": _dynamic}
"""The ways in which networks take images of another size, by the argument of their constructor, in the order
in which they are tried. A network of windows (``strict_img_size``) is built for its size, which decides where
windows are shifted. A network with neither argument is built for its size if timm does so, or left as it is.
"""


def image_size(config: Config, preprocessor: Config) -> tuple[int, int]:
    """Return the (height, width) of the images that timm's preprocessing makes."""
    height, width = preprocessing(config)["input_size"][1:]
    return int(height), int(width)


def resized(config: Config, preprocessor: Config, size: tuple[int, int] | None) -> tuple[Config, Config]:
    """Let timm resample the positions at run time, and set the size that its preprocessing makes.

    The positions of the checkpoint keep their own grid: ``img_size`` is that of the weights.
    """
    stock: Any = describe(timm_features.whole(config))
    if hasattr(stock, "dynamic_img_size"):
        config = switched(config, _dynamic(stock))
    return config if size is None else _making(config, size), preprocessor


def resized_beyond(
    config: Config, preprocessor: Config, size: tuple[int, int]
) -> Iterator[tuple[Config, Config]]:
    """Yield both configurations for a size, in every way of :data:`WAYS` that may be for this network."""
    stock: Any = describe(timm_features.whole(config))
    makers = [vars(kind)["__init__"] for kind in type(stock).__mro__ if "__init__" in vars(kind)]
    given = {name for make in makers for name in inspect.signature(make).parameters}
    built = _BUILT_FOR in given and stock.pretrained_cfg.get(_FIXED)
    for way in [way for name, way in WAYS.items() if name in given] or [_built if built else _as_it_is]:
        options = way(stock, size)
        if way is _built and not _same_weights(config, stock, (2 * size[0], size[1])):
            continue
        yield _making(switched(config, options) if options else config, size), preprocessor


def _same_weights(config: Config, stock: Any, size: tuple[int, int]) -> bool:
    """Return whether a network has the same parameters if it is built for a size with more tokens.

    If not, equal shapes prove nothing: a table may have as many rows at another size, in another order.
    """
    try:
        built = describe(timm_features.whole(switched(config, _built(stock, size))))
    except WeightsError:
        return False
    shapes, own = ({key: one.shape for key, one in net.named_parameters()} for net in (built, stock))
    return shapes == own


def _making(config: Config, size: tuple[int, int]) -> Config:
    """Set the size of the images that timm's preprocessing makes."""
    nested = "pretrained_cfg" in config
    settings = {**(config["pretrained_cfg"] if nested else config), "input_size": [CHANNELS, *size]}
    return {**config, "pretrained_cfg": settings} if nested else settings


def stored_for(config: Config, size: tuple[int, int]) -> dict[str, Any] | None:
    """Set the one size of images that the model takes, so that timm resamples no positions."""
    return switched(config, {"dynamic_img_size": False, "img_size": list(size)})
