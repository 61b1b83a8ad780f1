"""Maps of patch features: three principal components are shown as red, green and blue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vconv.types import Array

COMPONENTS = 3
"""Number of principal components that are shown, one per colour channel."""
TAILS = (1.0, 99.0)
"""Percentiles of the reference's scores that are drawn with the least and the greatest brightness."""
SCALE = (1e-8, 1.0)
"""Vector relative errors of a patch that are drawn with the least and the greatest brightness."""


@dataclass(frozen=True)
class Basis:
    """Three principal components of an image's patches, and how their scores become colours.

    Args:
        centre: the mean of the patches, float64 (D,).
        components: float64 (3, D), unit vectors; a component that does not exist is zero.
        low: for each component, the score that is drawn darkest, float64 (3,).
        high: for each component, the score that is drawn brightest, float64 (3,).
    """

    centre: Array
    components: Array
    low: Array
    high: Array

    @classmethod
    def fit(cls, patches: Array) -> Basis:
        """Find the directions in which patches differ most, by singular value decomposition.

        The sign of a component is arbitrary. It is chosen so that the coefficient with the greatest magnitude
        is positive.

        Args:
            patches: the patches of one image, (P, D).
        """
        values = patches.astype(np.float64)
        centre = values.mean(axis=0)
        _, strengths, rows = np.linalg.svd(values - centre, full_matrices=False)
        # Components with a negligible singular value are only rounding errors.
        rows = rows[strengths > 1e-12 * max(strengths[0], 1e-300)][:COMPONENTS]
        components = np.zeros((COMPONENTS, values.shape[1]))
        greatest = np.abs(rows).argmax(axis=1)
        signs = np.sign(np.take_along_axis(rows, greatest[:, None], axis=1))
        components[: len(rows)] = rows * signs
        low, high = np.percentile((values - centre) @ components.T, TAILS, axis=0)
        return cls(centre, components, low, high)

    def colours(self, patches: Array) -> Array:
        """Return the colours of patches (P, D) of the same image: uint8 (P, 3)."""
        scores = (patches.astype(np.float64) - self.centre) @ self.components.T
        span = np.where(self.high > self.low, self.high - self.low, 1.0)
        shades: Array = np.rint(255 * ((scores - self.low) / span).clip(0.0, 1.0)).astype(np.uint8)
        return shades


@dataclass(frozen=True)
class PatchMap:
    """Pictures of a variant's patches of one image, one pixel per patch.

    Args:
        colours: uint8 (H, W, 3), in the reference's basis.
        differences: uint8 (H, W): the vector relative error of each patch, as :func:`shaded` draws it.
        largest: the greatest vector relative error of a patch.
    """

    colours: Array
    differences: Array
    largest: float


def shaded(errors: Array) -> Array:
    """Return errors as uint8 shades on a logarithmic scale, :data:`SCALE`, the same for every map."""
    low, high = np.log10(SCALE)
    with np.errstate(divide="ignore"):
        height = (np.log10(errors) - low) / (high - low)
    shades: Array = np.rint(255 * height.clip(0.0, 1.0)).astype(np.uint8)
    return shades


def compare(basis: Basis, actual: Array, expected: Array, grid: tuple[int, int]) -> PatchMap:
    """Draw a variant's patches of one image in the reference's colours, and the error of each patch.

    Args:
        basis: the basis of the reference's patches.
        actual: the variant's patches, finite (P, D).
        expected: the reference's patches, (P, D).
        grid: the number of patches in a column and in a row; their product is P.
    """
    difference = np.linalg.norm(actual.astype(np.float64) - expected, axis=1)
    lengths = np.linalg.norm(expected.astype(np.float64), axis=1)
    errors = np.divide(difference, lengths, out=np.zeros_like(difference), where=lengths > 0)
    colours = basis.colours(actual).reshape(*grid, COMPONENTS)
    return PatchMap(colours, shaded(errors).reshape(grid), float(errors.max()))
