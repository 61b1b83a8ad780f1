"""Constant numbers of a graph, as CANN's fusion passes read them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vconv.convert.graphs.constants import single

_READ = (np.dtype(np.float32), np.dtype(np.float16))
"""The types of constants that the passes read."""
_SHAPES = ((), (1,))
"""The shapes of constants that the passes read."""


def number(value: ir.Value | None) -> float | None:
    """Return a constant that a pass reads as a number: a float32 or float16 of shape [] or [1].

    It may be computed from others, and stored outside the graph file: see :func:`.single`. CANN's compiler
    folds constants and reads the weights before it runs these passes.
    """
    found = single(value)
    if found is None or found.dtype not in _READ or found.shape not in _SHAPES:
        return None
    return float(found.item())


def holds(node: ir.Node, wanted: float, tolerance: float) -> bool:
    """Return whether one of a node's inputs is a constant number near another."""
    found = (number(value) for value in node.inputs)
    return any(one is not None and abs(one - wanted) <= tolerance for one in found)
