"""From photographs to pixel values, by the system's own image processor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import transformers
from PIL import Image

from vconv.convert.models import quiet
from vconv.errors import InputError
from vconv.types import Array

Processor = Callable[[Sequence[Image.Image]], Array]
"""Turns images of any size and mode into float32 (N, 3, H, W), resized and normalised."""


def load_processor(folder: Path) -> Processor:
    """Make the image processor of a folder, which does exactly what stock transformers does with it.

    Args:
        folder: a folder with ``preprocessor_config.json``.

    Raises:
        InputError: transformers knows no such image processor.
    """
    try:
        with quiet("transformers"):
            stock = transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(
            "transformers cannot make the image processor that preprocessor_config.json describes",
            got=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            expected="a processor that it knows",
            fix="use the preprocessor_config.json that was published with the weights",
        ) from error

    def process(images: Sequence[Image.Image]) -> Array:
        colours = [image.convert("RGB") for image in images]
        pixel_values = [stock(images=image, return_tensors="pt")["pixel_values"].numpy() for image in colours]
        return np.ascontiguousarray(np.concatenate(pixel_values), dtype=np.float32)

    return process


def preprocess(folder: Path, images: Sequence[Image.Image]) -> Array:
    """Turn images into a batch: see :func:`load_processor`."""
    return load_processor(folder)(images)
