"""Operators that only move data: they compute no value, so that what they give may equal what they take."""

from __future__ import annotations

ONNX_MOVES = frozenset(
    (
        *("Cast", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze"),
        *("Transpose", "Unsqueeze"),
    )
)
"""Operators of ONNX."""
TORCH_MOVES = frozenset(
    (
        *("_to_copy", "_unsafe_view", "alias", "clone", "detach", "expand", "permute", "reshape", "select"),
        *("slice", "split", "split_with_sizes", "squeeze", "t", "transpose", "unbind", "unsqueeze", "view"),
    )
)
"""Operators of torch."""
