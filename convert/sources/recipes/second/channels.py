"""Channels of the residual stream that version 2 of the recipe treats apart."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from vconv.convert.sources.recipes.base import Context, Wide

FITTED_WIDTH = 384
"""The width of the network that the numbers were measured in. Single channels of great magnitude have the
same share of a token's norm in networks of any width."""
KEPT_OF, LEAST_KEPT = 8, 30
"""One channel in eight is kept, and up to every second one where there would be fewer than this number."""
ADDED = 0.05
"""Factor on what blocks add to the kept channels and to the class token's channel."""
CLASS_CHANNEL, CLASS_TOKEN = 278, 0.75
"""The class token's channel, and its value there in the embedding."""
LAST = ((CLASS_CHANNEL, -22.0), (79, -19.0))
"""Channels of great magnitude at the end, each with the value that the last attention adds."""


def has_class_token(context: Context) -> bool:
    """Whether the network has a class token."""
    return any(part.role == "class_token" for part in context.network.layout.architecture.parts.values())


def kept(width: int) -> NDArray[np.bool_]:
    """Return which channels of the residual stream are kept."""
    found = np.zeros(width, bool)
    step = min(KEPT_OF, max(2, width // LEAST_KEPT))
    found[step // 2 :: step] = True
    return found


def channel_of(number: int, width: int) -> int:
    """Return the channel of a network of any width that stands for one of the measured network."""
    (free,) = np.nonzero(~kept(width))
    return int(free[np.searchsorted(free, number % width) % len(free)])


def great(amount: float, width: int) -> float:
    """Return the value of a channel of great magnitude in a network of this width."""
    return amount * math.sqrt(width / FITTED_WIDTH)


def adds(width: int) -> Wide:
    """Return the factors on what a block adds to each channel of the residual stream."""
    factors = np.where(kept(width), ADDED, 1.0)
    factors[channel_of(CLASS_CHANNEL, width)] = ADDED
    return factors
