"""Name the axes of a graph that takes a batch of images of any size.

Case 1: an axis of the input that is symbolic: it becomes ``batch``, ``height`` or ``width``.
Case 2: an axis of an output that is an expression of these: it becomes ``batch``, or ``patches`` (rows times
        columns), ``tokens`` (the same and the prefix tokens), ``rows`` or ``columns``, or ``rows_x2`` and
        so on, of a grid with more cells than patches.
Case 3: an axis of an output that is another expression: an error, because it would have no name.
Case 4: an axis of any other value: as case 2, if its length is that of an axis of an output, or is the one
        number of tokens where no output has it. If it is another expression, it loses its name, which ONNX
        allows: an engine may take equal names for equal lengths.
Case 5: an axis of the input that should be symbolic and is a number: an error, because the trace fixed it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import onnx_ir as ir
import sympy

from vconv.convert.graphs.passes.base import Condition, Pass, PassContext
from vconv.convert.graphs.passes.name_batch import shaped
from vconv.types import (
    BATCH_AXIS,
    COLUMNS_AXIS,
    HEIGHT_AXIS,
    PATCHES_AXIS,
    ROWS_AXIS,
    TOKENS_AXIS,
    WIDTH_AXIS,
    finer_axis,
)

_INPUT = {0: BATCH_AXIS, 2: HEIGHT_AXIS, 3: WIDTH_AXIS}
"""The name of each symbolic axis of the input, by its place."""


def name_axes(graph: ir.Graph, patch: int) -> bool:
    """Name the axes in place; return whether any name changed.

    Args:
        graph: the graph.
        patch: side of a patch, in pixels.

    Raises:
        ValueError: case 3 or 5.
    """
    batch, height, width = (_expression(str(dim.value)) for dim in _symbolic(graph))
    names = _Names(batch, height / patch, width / patch)
    names.add(dim for value in graph.outputs for dim in value.shape or ())
    names.add_inner_tokens(dim for value in shaped(graph) for dim in value.shape or ())
    (given,) = graph.inputs
    outputs, modified = set(graph.outputs), False
    for value in shaped(graph):
        before = tuple(value.shape or ())
        after = [
            dim if isinstance(dim, int) else _INPUT[place] if value is given else names.of(dim)
            for place, dim in enumerate(before)
        ]
        if value in outputs and None in after:
            raise ValueError(
                f"the output {value.name} has the shape {value.shape}, of which no name is known"
            )
        value.shape = ir.Shape(after)
        modified |= before != tuple(value.shape)
    return modified


class _Names:
    """The names of expressions of the batch and of the rows and columns of patches."""

    def __init__(self, batch: sympy.Expr, rows: sympy.Expr, columns: sympy.Expr) -> None:
        self._patches = rows * columns
        self._known = {batch: BATCH_AXIS, rows: ROWS_AXIS, columns: COLUMNS_AXIS, self._patches: PATCHES_AXIS}

    def add(self, dims: Iterable[int | ir.SymbolicDim]) -> None:
        """Find among the axes of the outputs those of finer grids, and the number of tokens.

        A finer grid has some cells for each row of patches. The tokens are patches and a number of prefix
        tokens.
        """
        found = {expression for dim in dims if (expression := _read(dim)) is not None}
        for side, name in list(self._known.items()):
            cells = {one / side for one in found} if name in (ROWS_AXIS, COLUMNS_AXIS) else set()
            self._known |= {
                side * one: finer_axis(name, int(one)) for one in cells if one.is_Integer and one > 1
            }
        tokens = self._tokens(found)
        if len(tokens) > 1:
            raise ValueError(f"the outputs have different numbers of tokens: {', '.join(map(str, tokens))}")
        self._known |= dict.fromkeys(tokens, TOKENS_AXIS)

    def add_inner_tokens(self, dims: Iterable[int | ir.SymbolicDim]) -> None:
        """Find the number of tokens among the axes of all values, if no output has it."""
        found = {expression for dim in dims if (expression := _read(dim)) is not None}
        tokens = self._tokens(found)
        if TOKENS_AXIS not in self._known.values() and len(tokens) == 1:
            self._known[tokens[0]] = TOKENS_AXIS

    def _tokens(self, found: Iterable[sympy.Expr]) -> list[sympy.Expr]:
        return [one for one in found if (one - self._patches).is_Integer and one - self._patches > 0]

    def of(self, dim: ir.SymbolicDim) -> str | None:
        """Return the name of an axis; None if it has none."""
        return self._known.get(_read(dim))


def _read(dim: int | ir.SymbolicDim) -> sympy.Expr | None:
    """Return the expression of an axis; None for a number, and for what cannot be read."""
    if isinstance(dim, int) or dim.value is None:
        return None
    try:
        return _expression(str(dim.value))
    except (sympy.SympifyError, TypeError):
        return None


def _symbolic(graph: ir.Graph) -> list[ir.SymbolicDim]:
    shape = graph.inputs[0].shape
    found = [shape[place] for place in _INPUT] if shape is not None and len(shape) == 4 else []
    dims = [dim for dim in found if isinstance(dim, ir.SymbolicDim) and dim.value is not None]
    if len(dims) != len(_INPUT):
        raise ValueError(f"the graph's input has shape {shape}: tracing fixed its batch or its size")
    return dims


@functools.lru_cache(maxsize=1024)
def _expression(text: str) -> sympy.Expr:
    """Read an exporter's expression; its symbols are whole numbers above 0, so that divisions cancel."""
    names = {str(symbol) for symbol in sympy.sympify(text).free_symbols}
    whole = {name: sympy.Symbol(name, integer=True, positive=True) for name in names}
    return sympy.expand(sympy.sympify(text, locals=whole))


def _fixed(model: ir.Model, context: PassContext) -> str:
    try:
        _symbolic(model.graph)
    except ValueError as error:
        return str(error)
    return ""


def _misnamed(model: ir.Model, context: PassContext) -> str:
    names = tuple(dim.value for dim in _symbolic(model.graph))
    return "" if names == tuple(_INPUT.values()) else f"their names are {', '.join(map(str, names))}"


PASS = Pass(
    "name-axes",
    lambda model, context: name_axes(model.graph, context.patch),
    requires=(Condition("batch, height and width are symbolic", _fixed),),
    ensures=(Condition("the names of batch, height and width are theirs", _misnamed),),
)
