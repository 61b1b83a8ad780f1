"""Operators that only move data: they compute no value, so that what they give may equal what they take."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

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


def readers(value: ir.Value) -> Iterator[ir.Node]:
    """Yield the nodes that compute with a value, as it is or moved."""
    for use in value.uses():
        if use.node.op_type not in ONNX_MOVES:
            yield use.node
            continue
        for moved in use.node.outputs:
            yield from readers(moved)
