"""Inputs: an artifact's own image processor, held against the original's or against what was recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vconv.runtime.inputs.images import natural_image, natural_images
from vconv.runtime.inputs.preprocessing import preprocess
from vconv.types import Array, Check, Status

WITHIN = 1e-5
"""Greatest difference between pixel values of one image: of rounding alone, some 1e-7."""
_PROBES, _SEED = 2, 77
MADE_UP = "synthetic:"
"""How the name of a made-up image begins; its seed follows."""
RecordedInputs = tuple[Array | None, tuple[str, ...]]


def verify_preprocessing(folder: Path, original: Path | None, recorded: RecordedInputs) -> Check:
    """Hold what an artifact's image processor makes of images against what the original's makes of them.

    The inputs of a validation were made once and for all, so that a wrong mean would show in no output.

    Args:
        folder: the artifact.
        original: the original's folder; None where it is not at hand: then made-up images that were recorded
            are made again.
        recorded: the inputs that were recorded, and what they are.
    """
    if original:
        images = natural_images(_PROBES, _SEED)
        expected = preprocess(original, images)
    else:
        seeds = [name.removeprefix(MADE_UP) for name in recorded[1] if name.startswith(MADE_UP)]
        if recorded[0] is None or not seeds or len(seeds) < len(recorded[1]):
            detail = "neither the original's image processor nor a made-up image that was recorded is at hand"
            return Check("preprocessing", Status.SKIPPED, detail)
        images, expected = [natural_image(int(seed)) for seed in seeds], recorded[0]
    actual = preprocess(folder, images)
    if actual.shape != expected.shape:
        detail = f"images come out as {list(actual.shape[1:])}, not as {list(expected.shape[1:])}"
        return Check("preprocessing", Status.FAILED, detail, "image size")
    distance = float(np.abs(actual - expected).max())
    if distance <= WITHIN:
        return Check("preprocessing", Status.PASSED, "images come out as the original's processor makes them")
    detail = f"pixel values differ by up to {distance:.3g} from those that the original's processor makes"
    return Check("preprocessing", Status.FAILED, detail, _fault(actual, expected))


def _fault(actual: Array, expected: Array) -> str:
    """Tell what class of fault makes one batch of pixel values (N, 3, H, W) another."""
    if float(np.abs(actual[:, ::-1] - expected).max()) <= WITHIN:
        return "channel order"
    channels = zip(actual.swapaxes(0, 1), expected.swapaxes(0, 1), strict=True)
    scaled = all(_is_affine(a.ravel(), e.ravel()) for a, e in channels)
    return "normalisation" if scaled else "interpolation"


def _is_affine(actual: Array, expected: Array) -> bool:
    """Tell whether one channel is another times a number, plus a number."""
    scale, shift = np.polyfit(expected.astype(np.float64), actual.astype(np.float64), 1)
    return float(np.abs(scale * expected + shift - actual).max()) <= 10 * WITHIN
