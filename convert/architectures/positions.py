"""How a learned position embedding is resampled from the grid that it is stored for to that of an image."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kernel:
    """A bicubic kernel.

    Args:
        antialias: whether it is widened where the new grid is smaller.
        offset: what is added to the number n of new rows or columns before the scale is computed:
            (n + offset) / N, where N is the number of old ones.
    """

    antialias: bool
    offset: float = 0.0

    def __str__(self) -> str:
        scale = f", scale (n + {self.offset:g}) / N" if self.offset else ""
        return f"bicubic, {'with' if self.antialias else 'without'} antialias{scale}"
