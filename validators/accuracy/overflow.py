"""Overflows that are finite: some NPUs saturate, and no check for Inf or NaN finds an overflow there.

Where float16 overflows, a first 910, a 310P and a 310B give 65504 for Inf and 0 for NaN (see
:mod:`vconv.convert.ascend.chips`). Such an output is found by its values, against the reference's.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vconv.figures import told_apart
from vconv.types import Array

GREATEST = float(np.finfo(np.float16).max)
"""The greatest float16 number, 65504."""
_FAR = 2.0
"""A number beyond this many times the reference's greatest is far out of range; metrics judge the others."""


def signs(actual: Array, expected: Array, bound: float | None) -> Iterator[str]:
    """Say how an output shows that something overflowed.

    A sound variant shows neither sign: where the reference is within float16, a sound element is 65504 only
    if the reference rounds to 65504 there; and the second sign is a breach of the bound itself, because no
    element differs by more than the whole vector does.

    Args:
        actual: the variant's output (B, ...), finite.
        expected: the reference's, finite, of the same shape.
        bound: the bound on the vector relative error; None if there is none.

    Yields:
        One sentence for elements at float16's greatest number, and one for numbers that are far out of the
        reference's range and differ by more than the bound allows.
    """
    with np.errstate(over="ignore"):
        rounded = expected.astype(np.float16)
    saturated = int(((np.abs(actual) == GREATEST) & (rounded != actual)).sum())
    if saturated:
        yield (
            f"{saturated} of {actual.size} elements are at {GREATEST:.0f}, the greatest float16 number, and "
            "the reference's are not: an overflow that saturated"
        )
    if bound is None:
        return
    for got, wanted in zip(actual.astype(np.float64), expected.astype(np.float64), strict=True):
        reach, allowed = np.abs(wanted).max(), bound * np.linalg.norm(wanted)
        if np.abs(got).max() > max(_FAR * reach, reach + allowed):
            greatest, expected_greatest = told_apart(np.abs(got).max(), reach)
            yield f"its greatest number is {greatest}, the reference's {expected_greatest}: out of range"
            return
