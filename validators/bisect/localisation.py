"""Localisation: where a variant departs from its reference, first by stage, then by operator.

Each stage of the variant is run twice. On the output of the reference's previous stage, it shows the error of
this stage alone. On the output of the variant's previous stage, it shows the error accumulated so far. In the
stage with the greatest error alone, every operator is then compared with those of the reference. One stage is
examined at a time: the outputs of its operators are kept in memory, and only the tokens of the other stages.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from vconv.runtime.stages.base import Stages
from vconv.runtime.stages.torch_model import TorchStages
from vconv.types import INPUT, Array, Arrays, Say
from vconv.validators.accuracy.metrics import vector_relative_error
from vconv.validators.bisect.matching import (
    MatchedOperator,
    first_departure,
    greatest_growth,
    match_operators,
)

_BY_OPERATOR: Mapping[str, str] = {
    **dict.fromkeys(("Erf", "Gelu", "Tanh", "erf", "gelu", "tanh"), "activation"),
    **dict.fromkeys(("LayerNormalization", "native_layer_norm"), "epsilon"),
    **dict.fromkeys(("Resize", "Upsample"), "position embedding"),
}
"""By operator: the class of fault that a departure at this operator indicates."""


@dataclass(frozen=True)
class StageError:
    """The error of one stage: the vector relative error of its worst output against the reference's.

    Args:
        stage: its name.
        own: the error of this stage alone: its input is the output of the reference's previous stage.
        total: the accumulated error: its input is the output of the variant's previous stage.
    """

    stage: str
    own: float
    total: float


@dataclass(frozen=True)
class Departure:
    """Where a variant departs from its reference.

    Args:
        stages: the errors of all stages, in order.
        worst: the index of the stage with the greatest error alone.
        matches: the operators of the worst stage, in order.
        culprit: the index in ``matches`` of the operator at which the stage departs; None if there is none.
        bound: a stage departs if its vector relative error exceeds this bound.
    """

    stages: tuple[StageError, ...]
    worst: int
    matches: tuple[MatchedOperator, ...]
    culprit: int | None
    bound: float

    @property
    def own(self) -> bool:
        """Whether any stage alone departs; NaN departs."""
        return not self.stages[self.worst].own <= self.bound

    @property
    def departs(self) -> bool:
        """Whether any stage departs, alone or by accumulated error; NaN departs."""
        return not all(row.own <= self.bound and row.total <= self.bound for row in self.stages)

    @property
    def fault(self) -> str:
        """The class of fault that the departing operator indicates; empty if no stage alone departs."""
        if not self.own:
            return ""
        found = None if self.culprit is None else self.matches[self.culprit]
        if found is None:
            return "operator"
        if found.by_position:
            return "position embedding"
        if found.operator in _BY_OPERATOR:
            return _BY_OPERATOR[found.operator]
        return "weights" if found.weights else "operator"

    def sentence(self, variant: str) -> str:
        """Return the result as one sentence."""
        row = self.stages[self.worst]
        others = [stage.own for place, stage in enumerate(self.stages) if place != self.worst]
        own = f"{row.own:.1e} in this stage alone (any other stage: at most {_greatest(others):.1e})"
        at = f", {self._at()}" if self.culprit is not None else ""
        if self.own:
            return f"{variant} departs in {row.stage}, by {own}{at or ', at no single operator'}"
        if self.departs:
            first = next(stage for stage in self.stages if not stage.total <= self.bound)
            together = f"{variant} departs from {first.stage} on, by {first.total:.1e} accumulated"
            return f"{together}, in no single stage; {row.stage} adds most, {own}{at}"
        kept = f"{variant} keeps to its reference: no stage departs by more than {self.bound:.0e}"
        return f"{kept}; {row.stage} differs most, by {own}{at}"

    def _at(self) -> str:
        assert self.culprit is not None
        found = self.matches[self.culprit]
        named = f"{found.operator} {found.node}".rstrip()
        weights = f", which works on {', '.join(found.weights)}" if found.weights else ""
        if found.error is None:
            return f"at {named}{weights}: nothing in the reference is near its output"
        return f"at {named}{weights}: its output is {found.error:.1e} from {found.counterpart}"


def _greatest(values: Iterable[float]) -> float:
    """Return the greatest value; NaN counts as greater than any number."""
    return max((math.inf if math.isnan(value) else value for value in values), default=0.0)


def distance(actual: Arrays, expected: Arrays) -> float:
    """Return the vector relative error of the worst output and image; infinite for NaN and other shapes."""
    if any(name not in actual or actual[name].shape != expected[name].shape for name in expected):
        return math.inf
    pairs = [pair for name in expected for pair in zip(actual[name], expected[name], strict=True)]
    return _greatest(vector_relative_error(a.astype("f8"), e.astype("f8")) for a, e in pairs)


def traversed(reference: Stages, pixel_values: Array) -> Iterator[tuple[str, Arrays, Arrays]]:
    """Run a reference stage by stage; yield the name, the inputs and the outputs of each stage."""
    found: Arrays = {INPUT: pixel_values}
    for place, name in enumerate(reference.names):
        given, found = found, reference.run(place, found)
        yield name, given, found


def localise(
    reference: TorchStages, variant: Stages, pixel_values: Array, bound: float, first: bool, say: Say
) -> Departure:
    """Find where a variant departs from its reference.

    Args:
        reference: the stages of the reference.
        variant: the stages of the variant, as many as the reference has.
        pixel_values: float32 (B, 3, H, W).
        bound: a stage or operator departs if its vector relative error exceeds this bound.
        first: whether to name the first operator that departs. Otherwise the operator at which the error
            grows most is named, which suits variants in which every operator rounds.
        say: receives progress lines.
    """
    actual: Arrays = {INPUT: pixel_values}
    rows: list[StageError] = []
    worst, into = 0, actual
    for place, (name, given, expected) in enumerate(traversed(reference, pixel_values)):
        # The run on the reference's output is the last one: the head then gives the outputs of single blocks
        # as each of these blocks alone computes them.
        actual = variant.run(place, actual)
        total = distance(actual, expected)
        own = distance(variant.run(place, given), expected)
        rows.append(StageError(name, own, total))
        say(f"{name}: {own:.1e} in this stage alone, {rows[-1].total:.1e} accumulated")
        if own > rows[worst].own:
            worst, into = place, given
    say(f"operator by operator in {rows[worst].stage}")
    matches = match_operators(
        variant.steps(worst, into), lambda take: reference.visit(worst, into, take), bound
    )
    culprit = (first_departure if first else greatest_growth)(matches)
    return Departure(tuple(rows), worst, tuple(matches), culprit, bound)
