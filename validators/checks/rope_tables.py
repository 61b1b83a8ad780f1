"""RoPE's tables in a graph, or its frequencies: they show with which periods it was traced."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from vconv.types import Array
from vconv.validators.checks.inspected_graph import InspectedGraph

TOLERANCE = 1e-5
"""Tables in float32 differ by up to 5e-7 from the float64 values; unrounded periods move them by 7e-3."""
_HALF_STEPS = {
    ir.DataType.FLOAT: 0.0,
    ir.DataType.FLOAT16: 2.0**-11,
    ir.DataType.BFLOAT16: 2.0**-9,
}
"""By the type of a table: the greatest rounding of a number of up to 1. It is less than what unrounded
periods do to a table."""
PERIOD_TOLERANCE = 1e-6
"""Relative. Periods in float32 differ by up to 1e-7; unrounded ones by 1e-3."""
_COMPARED_ROWS = 64


def differing_table(graph: InspectedGraph, periods: NDArray[np.float64]) -> str:
    """Return how a graph's tables of sines and cosines differ from those of the periods; empty if not.

    Libraries order and repeat the columns in their own ways. So each column must be one that the periods
    give, and each column that they give must be there.

    A graph for images of any size computes the tables, and has the periods or their inverse as a constant.

    Args:
        graph: a graph.
        periods: (head_dim / 4,).
    """
    if graph.any_size:
        return _differing_constant(graph, periods)
    grid = [side // graph.network.numbers.patch for side in graph.size]
    rows = grid[0] * grid[1]
    tables = list(_tables(graph.model, rows))
    if not tables:
        return f"no table of {rows} rows in {graph.name}"
    # The outermost patches have the greatest angles; a few rows keep large images cheap.
    chosen = np.unique(np.linspace(0, rows - 1, _COMPARED_ROWS).astype(int))
    wanted = _columns(periods, *grid)[chosen]
    found = np.concatenate([table.reshape(rows, -1)[chosen] for table, _ in tables], axis=1)
    allowed = TOLERANCE + max(half_step for _, half_step in tables)
    distances = np.abs(found[:, :, None] - wanted[:, None, :]).max(axis=0)
    worst = max(distances.min(axis=0).max(), distances.min(axis=1).max())
    return "" if worst <= allowed else f"a difference of {worst:.1e} in the tables of {graph.name}"


def _differing_constant(graph: InspectedGraph, periods: NDArray[np.float64]) -> str:
    """Return how the constants of as many elements as there are periods differ from all forms of them."""
    found = [
        table.ravel().astype(np.float64)
        for table, half_step in _constants(graph.model)
        if table.size == len(periods) and not half_step
    ]
    forms = (periods, 1 / periods, 2 * np.pi / periods)
    distances = [float(np.abs(one / form - 1).max()) for one in found for form in forms]
    if not distances:
        return f"no constant of {len(periods)} periods in {graph.name}"
    least = min(distances)
    return "" if least <= PERIOD_TOLERANCE else f"a difference of {least:.1e} in the periods of {graph.name}"


def _constants(model: ir.Model) -> Iterator[tuple[Array, float]]:
    """Yield the constants of floating point in a graph file, each with the greatest rounding of its type."""
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or isinstance(tensor, ir.ExternalTensor) or tensor.dtype not in _HALF_STEPS:
            continue
        yield tensor.numpy().astype(np.float32), _HALF_STEPS[tensor.dtype]


def _tables(model: ir.Model, rows: int) -> Iterator[tuple[Array, float]]:
    """Yield the constants of a graph file that have one row for each patch."""
    for table, half_step in _constants(model):
        if [side for side in table.shape if side > 1][:1] == [rows]:
            yield table, half_step


def _columns(periods: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Return the sines and cosines of all angles: (height * width, head_dim).

    The angle of a patch is ``2 pi x / period``, where x is the row, and then the column, of the patch's
    centre, from -1 to 1 over the image (DINOv3, arXiv:2508.10104).
    """
    sides = [2 * (np.arange(side) + 0.5) / side - 1 for side in (height, width)]
    places = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, 2)
    angles = (2 * np.pi * places[:, :, None] / periods).reshape(len(places), -1)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
