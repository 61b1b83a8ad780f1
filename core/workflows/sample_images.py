"""Images for a run: photographs or made-up images, preprocessed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from PIL import Image

from vconv.errors import InputError
from vconv.runtime.inputs.images import Photographs, natural_images
from vconv.runtime.inputs.preprocessing import load_processor, preprocess
from vconv.runtime.timing.clocks import timed
from vconv.types import Array
from vconv.validators.checks.preprocessing import MADE_UP

TIMED_IMAGES = 5
"""The number of images over which preprocessing is timed."""
SAMPLE_IMAGES = 2
"""The number of made-up images, if no photographs are given."""


def sample(
    folder: Path, photographs: Sequence[Image.Image], seed: int, size: tuple[int, int]
) -> tuple[Array, tuple[str, ...]]:
    """Preprocess photographs, or made-up images if there are no photographs.

    Args:
        folder: a folder with the system's ``preprocessor_config.json``.
        photographs: the photographs; an empty sequence for made-up images.
        seed: the seed of the made-up images.
        size: (height, width) that the preprocessed images must have.

    Returns:
        float32 (N, 3, H, W), and what each image is.

    Raises:
        InputError: the image processor makes another size.
    """
    images = photographs or natural_images(SAMPLE_IMAGES, seed)
    made_up = (f"{MADE_UP}{seed + index}" for index in range(len(images)))
    names = _names(photographs) if photographs else tuple(made_up)
    pixel_values = preprocess(folder, images)
    require_size(pixel_values, size)
    return pixel_values, names


def _names(photographs: Sequence[Image.Image]) -> tuple[str, ...]:
    """Return the names of photographs: those of their files; with the folder, where two are the same."""
    files = photographs.files if isinstance(photographs, Photographs) else ()
    names = [file.name for file in files] or [
        f"photograph {place}" for place in range(1, len(photographs) + 1)
    ]
    unclear = {name for name in names if names.count(name) > 1 or name.startswith(MADE_UP)}
    whole = [
        f"{file.absolute().parent.name}/{name}" if name in unclear else name
        for file, name in zip(files, names, strict=False)
    ]
    return tuple(name.encode("utf-8", "replace").decode() for name in whole or names)


def require_size(pixel_values: Array, size: tuple[int, int]) -> None:
    """Check that preprocessed images, (N, 3, H, W), have a size.

    Raises:
        InputError: they have another size.
    """
    if pixel_values.shape[1:] != (3, *size):
        raise InputError(
            "the image processor makes images of another size",
            got=list(pixel_values.shape[1:]),
            expected=[3, *size],
            fix="let size, crop and resize agree in preprocessor_config.json",
        )


def preprocessing_ms(folder: Path) -> float:
    """Return the median milliseconds to preprocess one image; loading and the first image do not count."""
    process = load_processor(folder)
    images = natural_images(1, seed=0)
    process(images)
    seconds = [timed(partial(process, images), synchronize=lambda: None) for _ in range(TIMED_IMAGES)]
    return 1e3 * statistics.median(seconds)
