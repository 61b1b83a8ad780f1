"""Constants of one element in a graph, where exporters write them as tensors or compute them from others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

_COMPUTED: Mapping[str, Callable[..., Any]] = {
    "Add": np.add,
    "Cast": np.positive,
    "Div": np.divide,
    "Exp": np.exp,
    "Identity": np.positive,
    "Mul": np.multiply,
    "Neg": np.negative,
    "Pow": np.power,
    "Reciprocal": np.reciprocal,
    "Sqrt": np.sqrt,
    "Sub": np.subtract,
}
"""Operators by which exporters compute a number from others, such as the root of 2."""
_GREATEST_DEPTH = 4
"""How many of these operators, one after the other, are followed."""


def single(value: ir.Value | None) -> np.ndarray[Any, Any] | None:
    """Return a constant of one element: a tensor, or what a few operators compute of such tensors.

    Only floating-point numbers are computed. A tensor may be stored outside the graph file.

    Returns:
        The constant in its type and shape; None for any other value, and where the file outside is missing.
    """
    return _single(value, _GREATEST_DEPTH)


def _single(value: ir.Value | None, depth: int) -> np.ndarray[Any, Any] | None:
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    if tensor is not None:
        return _loaded(tensor) if tensor.size == 1 else None
    node = value.producer() if value is not None else None
    if node is None or not depth or node.op_type not in _COMPUTED or node.domain not in ("", "ai.onnx"):
        return None
    given = []
    for one in node.inputs:
        found = _single(one, depth - 1)
        if found is None or found.dtype.kind != "f":
            return None
        given.append(found)
    kind = ir.DataType(node.attributes.get_int("to", 0)).numpy() if node.op_type == "Cast" else given[0].dtype
    with np.errstate(all="ignore"):
        return np.asarray(_COMPUTED[node.op_type](*given), kind)


def _loaded(tensor: ir.TensorProtocol) -> np.ndarray[Any, Any] | None:
    try:
        return np.array(tensor.numpy())
    except OSError:
        return None
    finally:
        if isinstance(tensor, ir.ExternalTensor):
            tensor.release()
