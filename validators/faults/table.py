"""The table of all faults. A new fault is one row in the file of its kind."""

from __future__ import annotations

from vconv.validators.faults import checkpoints, exports, graphs, layers, patches, reduced, sizes

FAULTS = (
    *graphs.FAULTS,
    *exports.FAULTS,
    *sizes.FAULTS,
    *layers.FAULTS,
    *patches.FAULTS,
    *checkpoints.FAULTS,
    *reduced.FAULTS,
)
"""All faults, in the order in which a self-test injects them."""
