"""From photographs to pixel values, by the system's own image processor."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vconv.convert.layouts.table import find_layout
from vconv.convert.libraries import timm_models
from vconv.convert.libraries.base import quiet, stock_transformers, understood
from vconv.errors import ArtifactError, InputError
from vconv.types import CONFIG_FILE, PREPROCESSOR_FILE, Array, Config

Processor = Callable[[Sequence[Image.Image]], Array]
"""Turns images of any size and mode into float32 (N, 3, H, W), resized and normalised."""
_One = Callable[[Image.Image], Array]


def _transformers(folder: Path) -> _One:
    with stock_transformers() as transformers, quiet("transformers"):
        # Left open, it asks on the terminal whether to run code that the folder names.
        stock = transformers.AutoImageProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    return lambda image: stock(images=image, return_tensors="pt")["pixel_values"].numpy()[0]


def _timm(folder: Path) -> _One:
    from timm.data import transforms_factory

    config = read_config(folder)
    create: Any = transforms_factory.create_transform
    transform: Any = create(**timm_models.preprocessing(config))
    return lambda image: transform(image).numpy()


_PROCESSORS: Mapping[str, tuple[Callable[[Path], _One], str]] = {
    "transformers": (_transformers, PREPROCESSOR_FILE),
    "timm": (_timm, CONFIG_FILE),
}
"""By library: what makes a folder's stock image processor, and the file that describes it."""


def read_config(folder: Path) -> Config:
    """Return the ``config.json`` of an artifact, or of a source.

    Raises:
        ArtifactError: it is none.
    """
    try:
        config = json.loads((folder / CONFIG_FILE).read_bytes())
    except (ValueError, RecursionError) as error:
        raise _no_config(folder, str(error)) from error
    if not isinstance(config, dict):
        raise _no_config(folder, f"a {type(config).__name__}")
    return config


def _no_config(folder: Path, got: str) -> ArtifactError:
    return ArtifactError(
        f"cannot read {folder / CONFIG_FILE}",
        got=got,
        expected="a JSON object",
        fix="export the artifact again, or fetch it again",
    )


def load_processor(folder: Path) -> Processor:
    """Make the image processor of a folder, which does exactly what its stock library does with it.

    Args:
        folder: a folder with the library's configuration files.

    Raises:
        InputError: the library knows no such image processor, or, from the processor, cannot run it.
    """
    library = find_layout(read_config(folder)).library
    make, file = _PROCESSORS[library]
    # Libraries find some faults only when the first image comes.
    understandable = functools.partial(understood, library, "image processor", file, InputError, folder)
    with understandable():
        one = make(folder)

    def process(images: Sequence[Image.Image]) -> Array:
        plain = [image.convert("RGB") for image in images]
        with understandable():
            pixel_values = [one(image) for image in plain]
            return np.ascontiguousarray(np.stack(pixel_values), dtype=np.float32)

    return process


def preprocess(folder: Path, images: Sequence[Image.Image]) -> Array:
    """Turn images into a batch: see :func:`load_processor`."""
    return load_processor(folder)(images)
