"""What is published of a fusion pass of CANN's graph compiler, and where it would fire in a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import onnx_ir as ir


class Effect(StrEnum):
    """What the values of a graph lose when a pass fires."""

    RESULT = "result"
    """Another function is computed."""
    PRECISION = "precision"
    """A value is rounded to a narrower type than the graph declares."""
    ROUNDING = "rounding"
    """The same function is computed, and its intermediate values are rounded otherwise."""

    @property
    def harmful(self) -> bool:
        """Whether a graph for NPUs must not let this happen."""
        return self is not Effect.ROUNDING


@dataclass(frozen=True)
class Match:
    """A place where a pass would fire.

    Args:
        nodes: the nodes that it replaces; the last one gives the result.
        operand: the value that the new operator reads.
        effect: what this replacement does to the values.
    """

    nodes: tuple[ir.Node, ...]
    operand: ir.Value
    effect: Effect

    @property
    def result(self) -> ir.Value:
        """The value that the new operator gives."""
        return self.nodes[-1].outputs[0]

    @property
    def place(self) -> str:
        """The name of the last node, by which a reader finds the place in the graph."""
        return self.nodes[-1].name or self.result.name or self.nodes[-1].op_type


@dataclass(frozen=True)
class Fusion:
    """A fusion pass: a row of the table.

    Args:
        name: its name, as CANN's switch file and ``fusion_result.json`` have it.
        pattern: the operators that it replaces, under their names in ONNX.
        conditions: what it asks of constants, types and readers.
        becomes: the operator of CANN that it puts in their place.
        numbers: what becomes of the values.
        chips: on which processors it is known to be on.
        source: where this was published.
        find: returns the places in a graph where it would fire.
        off: whether the switch file turns it off, so that it is an error if it fires. The pass of a LayerNorm
            stays on: it harms a float16 graph alone, which the check *fusions* refuses before it is compiled.
    """

    name: str
    pattern: str
    conditions: str
    becomes: str
    numbers: str
    chips: str
    source: str
    find: Callable[[ir.Model], Iterator[Match]]
    off: bool = False
