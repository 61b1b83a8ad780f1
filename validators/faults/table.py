"""Every fault. A new one is one row in the file of its kind."""

from __future__ import annotations

from vconv.validators.faults import checkpoints, exports, graphs, patches

FAULTS = (*graphs.FAULTS, *exports.FAULTS, *patches.FAULTS, *checkpoints.FAULTS)
"""In the order in which a self-test makes them."""
