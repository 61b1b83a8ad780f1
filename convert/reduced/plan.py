"""The plan of a graph in a reduced precision: what is computed in which type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from vconv.types import Array

LEVELS = 255
"""The number of steps of an 8-bit whole number."""


@dataclass(frozen=True)
class Range:
    """The range of a value, which a quantised graph represents by the numbers 0 to 255.

    Args:
        least: the least value on the calibration images, or 0 if all are greater.
        greatest: the greatest value, or 0 if all are less.
    """

    least: float
    greatest: float

    @property
    def scale(self) -> float:
        """The difference of two neighbouring numbers, in float32."""
        found = np.float32((self.greatest - self.least) / LEVELS)
        return float(found) if found > 0 else 1.0

    @property
    def zero_point(self) -> int:
        """The number that stands for zero, so that zero is exact."""
        return int(np.clip(np.rint(-self.least / self.scale), 0, LEVELS))


@dataclass(frozen=True)
class Quantised:
    """How one product with a weight is quantised.

    Args:
        activation: the range of what is multiplied; None if each run finds it.
        smoothing: what each channel of the input is divided by, and each row of the weight multiplied by,
            float32 (inputs,); None for nothing. It moves outliers from the activation into the weight
            (SmoothQuant, arXiv:2211.10438).
    """

    activation: Range | None
    smoothing: Array | None = None


@dataclass(frozen=True)
class Plan:
    """The plan of a graph in a reduced precision.

    Args:
        precision: the precision.
        kept: the names of the nodes that stay in float32, besides those that every such graph keeps.
        quantised: the products that are quantised, by the name of their weight.
    """

    precision: str
    kept: frozenset[str] = frozenset()
    quantised: Mapping[str, Quantised] = field(default_factory=dict)
