"""Matching: which operators of a variant gave what some operator of the reference gave.

The two need not be the same operators: a graph spells out what torch does at one stroke, and moves data
around where torch only looks at it differently. So values are matched, not names: a value of the variant
agrees if the reference has it too, further along than what it was made from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vconv.runtime.stages.base import TOKENS, Step

FAR = 0.5
"""Vector relative error from which two values are not held to be meant to be the same."""
_LAYOUT = frozenset(
    (
        *("Cast", "Expand", "Flatten", "Gather", "Reshape", "Slice", "Split", "Squeeze", "Transpose"),
        *("Unsqueeze", "_to_copy", "_unsafe_view", "alias", "clone", "detach", "expand", "permute"),
        *("reshape", "select", "slice", "split", "split_with_sizes", "squeeze", "t", "transpose"),
        *("unbind", "unsqueeze", "view"),
    )
)
"""Operators, of ONNX and of torch, that may rightly give what they were given: they compute nothing."""


@dataclass(frozen=True)
class MatchedOperator:
    """One operator of the variant, and how what it gave compares.

    Args:
        operator: what it is.
        node: what a user finds it by.
        weights: the weights that it works on.
        shape: of what it gave.
        counterpart: what gave the nearest value in the reference; empty if none is near.
        error: vector relative error between the two; None if none is near.
        agrees: whether its value is the reference's, or on the way to some that are.
        inputs: the places of the operators that it works on.
    """

    operator: str
    node: str
    weights: tuple[str, ...]
    shape: tuple[int, ...]
    counterpart: str
    error: float | None
    agrees: bool
    inputs: tuple[int, ...]


@dataclass(frozen=True)
class _Near:
    """A value of the reference that is near one of the variant's.

    Args:
        place: how far along it is.
        error: vector relative error.
        label: what gave it.
    """

    place: int
    error: float
    label: str


class _Neighbours:
    """Compares each value of the reference, as it comes by, with all of the variant's that have its size."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._flat: list[NDArray[np.float64]] = [step.value.astype(np.float64).ravel() for step in steps]
        self._norms = [float(np.linalg.norm(flat)) for flat in self._flat]
        self._by_size: dict[int, list[int]] = defaultdict(list)
        for place, flat in enumerate(self._flat):
            self._by_size[flat.size].append(place)
        self.found: list[list[_Near]] = [[] for _ in steps]
        self._seen = 0

    def take(self, step: Step) -> None:
        """Take one value of the reference."""
        expected = step.value.astype(np.float64).ravel()
        norm = float(np.linalg.norm(expected))
        for place in self._by_size.get(expected.size, ()):
            # |a - e| is at least | |a| - |e| |, so that most need not be looked at whole.
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
    """Match what a variant's operators gave with what the reference's do.

    Args:
        steps: the variant's, in an order in which each comes after what it works on.
        visit: runs the reference, and hands over its steps one by one.
        tolerance: vector relative error up to which two values agree.
    """
    neighbours = _Neighbours(steps)
    visit(neighbours.take)
    names = {step.name: place for place, step in enumerate(steps)}
    inputs = [tuple(names[name] for name in step.inputs if name != TOKENS) for step in steps]
    nearest: list[_Near | None] = []
    reached: list[int] = []
    for place, step in enumerate(steps):
        past = max((reached[source] for source in inputs[place]), default=-1)
        least = past if step.operator in _LAYOUT else past + 1
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
        )
        for step, near, agrees, sources in zip(steps, nearest, agree, inputs, strict=True)
    ]


def _agreeing(
    nearest: Sequence[_Near | None], inputs: Sequence[tuple[int, ...]], tolerance: float
) -> list[bool]:
    """Tell which values are the reference's, or are on the way to some that are.

    What has no counterpart agrees if anything made from it does; what has one that is near, but not near
    enough, only if everything does: where a part of it is right, so is what is made from that part alone.
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
    """Return the place of the first operator that departs although all that it works on agrees."""
    for place, found in enumerate(matches):
        if not found.agrees and all(matches[source].agrees for source in found.inputs):
            return place
    return None


def greatest_growth(matches: Sequence[MatchedOperator]) -> int | None:
    """Return the place of the operator at which the error grows most over what it works on."""
    grown = {
        place: found.error - max((matches[source].error or 0.0 for source in found.inputs), default=0.0)
        for place, found in enumerate(matches)
        if found.error is not None
    }
    return max(grown, key=lambda place: grown[place]) if grown else None
