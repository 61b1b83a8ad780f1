"""Matching: which operators of a variant have the same output as an operator of the reference.

The two operators need not be of the same kind: a graph spells out what torch computes in one operator, and
copies data where torch only makes a view. So values are matched, not names. A value of the variant agrees if
the reference computes the same value, at a later place than the values it was computed from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vconv.convert.graphs.moves import ONNX_MOVES, TORCH_MOVES
from vconv.runtime.stages.base import TOKENS, Step

FAR = 0.5
"""Two values with a greater vector relative error are not regarded as counterparts."""


@dataclass(frozen=True)
class MatchedOperator:
    """One operator of the variant, and how its output compares with the reference.

    Args:
        operator: the kind of the operator.
        node: the name by which a user finds it in the graph.
        weights: the names of the weights that it reads.
        shape: the shape of its output.
        counterpart: the operator of the reference with the nearest output; empty if none is near.
        error: the vector relative error between the two outputs; None if none is near.
        agrees: whether its output equals one of the reference, or values computed from it do.
        inputs: the indices of the operators whose outputs it reads.
        by_position: whether it takes a constant with a row for each patch.
    """

    operator: str
    node: str
    weights: tuple[str, ...]
    shape: tuple[int, ...]
    counterpart: str
    error: float | None
    agrees: bool
    inputs: tuple[int, ...]
    by_position: bool = False


@dataclass(frozen=True)
class _Near:
    """A value of the reference that is near a value of the variant.

    Args:
        place: its index in the order of execution.
        error: the vector relative error between the two.
        label: the operator that computed it.
    """

    place: int
    error: float
    label: str


class _Neighbours:
    """Compares each value of the reference, as it is computed, with the variant's values of the same size."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._flat: list[NDArray[np.float64]] = [step.value.astype(np.float64).ravel() for step in steps]
        self._norms = [float(np.linalg.norm(flat)) for flat in self._flat]
        self._by_size: dict[int, list[int]] = defaultdict(list)
        for place, flat in enumerate(self._flat):
            self._by_size[flat.size].append(place)
        self.found: list[list[_Near]] = [[] for _ in steps]
        self._seen = 0

    def take(self, step: Step) -> None:
        """Compare one value of the reference."""
        expected = step.value.astype(np.float64).ravel()
        norm = float(np.linalg.norm(expected))
        for place in self._by_size.get(expected.size, ()):
            # |a - e| is at least | |a| - |e| |: most values are ruled out by their norms alone.
            if abs(self._norms[place] - norm) <= FAR * norm:
                distance = float(np.linalg.norm(self._flat[place] - expected))
                error = distance / norm if norm else distance
                if error < FAR:
                    near = _Near(self._seen, error, f"{step.operator} {step.node}".strip())
                    self.found[place].append(near)
        self._seen += 1


def match_operators(
    steps: Sequence[Step], visit: Callable[[Callable[[Step], None]], None], tolerance: float
) -> list[MatchedOperator]:
    """Match the outputs of a variant's operators with those of the reference's operators.

    Args:
        steps: the variant's operators, in topological order.
        visit: runs the reference and passes on its steps one by one.
        tolerance: two values agree up to this vector relative error.
    """
    neighbours = _Neighbours(steps)
    visit(neighbours.take)
    names = {step.name: place for place, step in enumerate(steps)}
    inputs = [tuple(names[name] for name in step.inputs if name != TOKENS) for step in steps]
    nearest: list[_Near | None] = []
    reached: list[int] = []
    for place, step in enumerate(steps):
        past = max((reached[source] for source in inputs[place]), default=-1)
        least = past if step.operator in ONNX_MOVES | TORCH_MOVES else past + 1
        further = [near for near in neighbours.found[place] if near.place >= least]
        nearest.append(min(further, key=lambda near: near.error, default=None))
        reached.append(min((near.place for near in further if near.error <= tolerance), default=past))
    agree = _agreeing(nearest, inputs, tolerance)
    return [
        MatchedOperator(
            step.operator,
            step.node,
            step.weights,
            tuple(step.value.shape),
            near.label if near else "",
            near.error if near else None,
            agrees,
            sources,
            step.by_position,
        )
        for step, near, agrees, sources in zip(steps, nearest, agree, inputs, strict=True)
    ]


def _agreeing(
    nearest: Sequence[_Near | None], inputs: Sequence[tuple[int, ...]], tolerance: float
) -> list[bool]:
    """Return which values agree with the reference: by themselves, or by the values computed from them.

    A value without a counterpart agrees if any value computed from it does. A value whose counterpart is
    near, but outside the tolerance, agrees only if all values computed from it do: if only a part of it is
    right, values computed from that part alone are right too.
    """
    consumers: list[list[int]] = [[] for _ in nearest]
    agree = [False] * len(nearest)
    for place in reversed(range(len(nearest))):
        near, after = nearest[place], [agree[consumer] for consumer in consumers[place]]
        there = near is not None and near.error <= tolerance
        agree[place] = there or (any(after) if near is None else bool(after) and all(after))
        for source in inputs[place]:
            consumers[source].append(place)
    return agree


def first_departure(matches: Sequence[MatchedOperator]) -> int | None:
    """Return the index of the first operator that departs although all its inputs agree."""
    for place, found in enumerate(matches):
        if not found.agrees and all(matches[source].agrees for source in found.inputs):
            return place
    return None


def greatest_growth(matches: Sequence[MatchedOperator]) -> int | None:
    """Return the index of the operator whose error exceeds that of its inputs most."""
    grown = {
        place: found.error - max((matches[source].error or 0.0 for source in found.inputs), default=0.0)
        for place, found in enumerate(matches)
        if found.error is not None
    }
    return max(grown, key=lambda place: grown[place]) if grown else None
