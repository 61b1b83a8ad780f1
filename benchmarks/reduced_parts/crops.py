"""Square crops of the photographs that packages ship, and the neighbours of each among other photographs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from trained_dinov2 import photographs

from vconv.types import Array

NEIGHBOURS = 10
LEAST_SHARE = 3
"""A crop has at least the shorter side of its photograph, divided by this, as its side."""


def crops(count: int, seed: int) -> tuple[list[Image.Image], list[str]]:
    """Cut square crops at random places, in random sizes, from each photograph in turn.

    Args:
        count: the number of crops.
        seed: the seed of the places and sizes.

    Returns:
        The crops, and the name of the photograph of each.
    """
    found, random = photographs(), np.random.Generator(np.random.PCG64(seed))
    names = [sorted(found)[place % len(found)] for place in range(count)]
    return [_crop(found[name], random) for name in names], names


def _crop(photograph: Image.Image, random: np.random.Generator) -> Image.Image:
    width, height = photograph.size
    side = int(random.integers(min(width, height) // LEAST_SHARE, min(width, height)))
    left, top = (int(random.integers(whole - side + 1)) for whole in (width, height))
    return photograph.crop((left, top, left + side, top + side))


def saved(images: Sequence[Image.Image], folder: Path) -> Path:
    """Write images as PNG files into a new folder; return the folder."""
    folder.mkdir()
    for place, image in enumerate(images):
        image.save(folder / f"{place:03d}.png")
    return folder


def neighbours(features: Array, names: Sequence[str]) -> Array:
    """Find the nearest neighbours of each crop by cosine, among the crops of other photographs.

    Args:
        features: (N, D).
        names: the photograph of each crop.

    Returns:
        (N, NEIGHBOURS), the indices of the neighbours, the nearest first.
    """
    rows = features.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    photograph = np.array(names)
    cosines = np.where(photograph[:, None] == photograph, -np.inf, rows @ rows.T)
    return np.argsort(-cosines, axis=1, kind="stable")[:, :NEIGHBOURS]


def kept(actual: Array, expected: Array, names: Sequence[str]) -> float:
    """Return the share of the neighbours by the expected features that the actual ones find too.

    It is 0 if a feature is not finite.
    """
    if not np.isfinite(actual).all():
        return 0.0
    pairs = zip(neighbours(actual, names), neighbours(expected, names), strict=True)
    return float(np.mean([len({*found} & {*wanted}) / NEIGHBOURS for found, wanted in pairs]))
