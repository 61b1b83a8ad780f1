"""The pictures of a report: the images of the validation, and maps of each variant's patch features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vconv.runtime.engines.base import Session
from vconv.types import Array, Arrays
from vconv.validators.outcome import Looked
from vconv.validators.report.page.maps import Basis, PatchMap, compare
from vconv.validators.report.rows import PatchMapRow, VariantRow
from vconv.validators.validation import Candidate

PATCHES = "patches"
SHOWN = 4
"""Number of the images of the validation that are shown."""
NO_PATCHES = "the reference has no patches to draw"

Key = tuple[str, str, str]
"""A variant, its engine and its device: they identify a row of a report."""


def key(row: VariantRow) -> Key:
    """Return the key of a report's row."""
    return row.variant, row.engine, row.device


@dataclass(frozen=True)
class Gallery:
    """The pictures of a report. They are small: for each variant, only one pixel per patch is kept.

    Args:
        names: the names of the images that are shown.
        photographs: these images as the network saw them: uint8 (N, H, W, 3).
        expected: the reference's patches of these images, (N, P, D).
        grid: the number of patches in a column and in a row.
        bases: for each image, the reference's principal components.
        reason: why there are no maps, if the reference has no patches.
        maps: for each variant, one map per image; filled by :meth:`look`.
    """

    names: tuple[str, ...]
    photographs: Array
    expected: Array
    grid: tuple[int, int]
    bases: tuple[Basis, ...]
    reason: str = NO_PATCHES
    maps: dict[Key, tuple[PatchMap, ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        photographs: Array,
        outputs: Arrays,
        grid: tuple[int, int],
        reason: str = NO_PATCHES,
    ) -> Gallery:
        """Make a gallery of the first images, with the reference's principal components.

        Args:
            names: the names of the images.
            photographs: the images, uint8 (N, H, W, 3).
            outputs: the reference's outputs, by name.
            grid: the number of patches in a column and in a row.
            reason: why there are no maps, if the reference has no patches.
        """
        expected = outputs.get(PATCHES, np.zeros((0, 0, 0)))[:SHOWN]
        shown = len(expected)
        bases = tuple(Basis.fit(patches) for patches in expected)
        return cls(tuple(names[:shown]), photographs[:shown], expected, grid, bases, reason)

    def reference(self) -> tuple[Array, ...]:
        """Return the maps of the reference, uint8 (H, W, 3), one per image."""
        pairs = zip(self.bases, self.expected, strict=True)
        return tuple(basis.colours(patches).reshape(*self.grid, -1) for basis, patches in pairs)

    def look(self, candidate: Candidate, session: Session, outputs: Arrays) -> Looked[PatchMapRow]:
        """Make and keep the maps of a variant.

        Args:
            candidate: the variant.
            session: the open session of the variant; not used here.
            outputs: the variant's outputs for all images.

        Returns:
            For each image the largest vector relative error of a patch; or why there are no maps.
        """
        reason = self._lack(outputs)
        if reason:
            return Looked(None, reason)
        actual = outputs[PATCHES][: len(self.expected)]
        made = tuple(
            compare(basis, one, other, self.grid)
            for basis, one, other in zip(self.bases, actual, self.expected, strict=True)
        )
        self.maps[candidate.variant, candidate.engine, candidate.device.name] = made
        pairs = zip(self.names, made, strict=True)
        return Looked(tuple(PatchMapRow(image=name, largest=one.largest) for name, one in pairs), "")

    def _lack(self, outputs: Arrays) -> str:
        """Return why a variant's patches cannot be drawn; empty if they can."""
        if not len(self.expected):
            return self.reason
        found = outputs.get(PATCHES)
        if found is None or found.shape[1:] != self.expected.shape[1:] or len(found) < len(self.expected):
            return "its patches are missing, or of another shape than the reference's"
        return "" if np.isfinite(found[: len(self.expected)]).all() else "its patches are not all numbers"
