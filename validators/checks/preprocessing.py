"""Inputs: an artifact's image processor is compared with the original's or with recorded inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vconv.runtime.inputs.images import natural_image, natural_images
from vconv.runtime.inputs.preprocessing import preprocess
from vconv.types import Array, Check, Status

WITHIN = 1e-5
"""Greatest allowed difference between pixel values of one image; rounding alone causes about 1e-7."""
_PROBES, _SEED = 2, 77
MADE_UP = "synthetic:"
"""Prefix of the name of a made-up image; its seed follows."""
RecordedInputs = tuple[Array | None, tuple[str, ...]]


def verify_preprocessing(folder: Path, original: Path | None, recorded: RecordedInputs) -> Check:
    """Compare the pixel values that an artifact's image processor makes with those of the original's.

    All variants of a validation get the same prepared inputs, so a wrong mean would not show in any output.

    Args:
        folder: the artifact.
        original: the original's folder; None if it is not at hand. Then recorded made-up images are made
            again.
        recorded: the recorded inputs, and the names of their images.
    """
    if original:
        images = natural_images(_PROBES, _SEED)
        expected = preprocess(original, images)
    else:
        seeds = [name.removeprefix(MADE_UP) for name in recorded[1] if name.startswith(MADE_UP)]
        if recorded[0] is None or not seeds or len(seeds) < len(recorded[1]):
            detail = "neither the original's image processor nor a recorded made-up image is at hand"
            return Check("preprocessing", Status.SKIPPED, detail)
        images, expected = [natural_image(int(seed)) for seed in seeds], recorded[0]
    actual = preprocess(folder, images)
    if actual.shape != expected.shape:
        detail = f"images have the shape {list(actual.shape[1:])}, not {list(expected.shape[1:])}"
        return Check("preprocessing", Status.FAILED, detail, "image size")
    distance = float(np.abs(actual - expected).max())
    if distance <= WITHIN:
        return Check("preprocessing", Status.PASSED, "pixel values equal those of the original's processor")
    detail = f"pixel values differ by up to {distance:.3g} from those of the original's processor"
    return Check("preprocessing", Status.FAILED, detail, _fault(actual, expected))


def _fault(actual: Array, expected: Array) -> str:
    """Return the class of fault that turns one batch of pixel values (N, 3, H, W) into another."""
    if float(np.abs(actual[:, ::-1] - expected).max()) <= WITHIN:
        return "channel order"
    channels = zip(actual.swapaxes(0, 1), expected.swapaxes(0, 1), strict=True)
    scaled = all(_is_affine(a.ravel(), e.ravel()) for a, e in channels)
    return "normalisation" if scaled else "interpolation"


def _is_affine(actual: Array, expected: Array) -> bool:
    """Return whether one channel is an affine function of another."""
    scale, shift = np.polyfit(expected.astype(np.float64), actual.astype(np.float64), 1)
    return float(np.abs(scale * expected + shift - actual).max()) <= 10 * WITHIN
