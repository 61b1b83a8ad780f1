"""A short summary of a variant's outputs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vconv.runtime.engines.base import Placed
from vconv.types import Arrays
from vconv.validators.report.rows import OutputSummary

SHOWN = 5
"""Number of values of each output that are shown."""


def summarise_outputs(outputs: Arrays, placed: Mapping[str, Placed]) -> dict[str, OutputSummary]:
    """Describe the outputs of one run.

    Args:
        outputs: arrays (B, ...), by name.
        placed: the type and device of each output before it became an array.

    Returns:
        By output: ``shape``, the variant's ``dtype`` and ``device``, ``min``, ``max``, ``mean`` (in float64),
        and the ``first`` values of the first image.
    """
    rows = {}
    for name, array in outputs.items():
        wide = array.astype(np.float64)
        place = placed.get(name, Placed(str(array.dtype), "cpu"))
        rows[name] = OutputSummary(
            shape=array.shape,
            dtype=place.dtype,
            device=place.device,
            min=float(wide.min()),
            max=float(wide.max()),
            mean=float(wide.mean()),
            first=tuple(float(value) for value in wide.reshape(-1)[:SHOWN]),
        )
    return rows
