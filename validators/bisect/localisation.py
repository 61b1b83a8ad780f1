"""Localisation: where a variant departs from its reference, stage by stage, then operator by operator.

Each stage of the variant is run twice: on what the reference's stage before it gave, which tells what it does
wrong of its own, and on what the variant's own gave, which tells what has come together so far. Of the stage
that is worst of its own, every operator is then held against those of the reference. One stage is looked at
at a time: what its operators gave is held, and of the other stages nothing but the tokens.
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
}
"""By operator, the class of fault that a departure at it is of."""


@dataclass(frozen=True)
class StageError:
    """How far one stage is from the reference's, as the vector relative error of its worst output.

    Args:
        stage: its name.
        own: given what the reference's stage before it gave.
        total: given what the variant's own stage before it gave.
    """

    stage: str
    own: float
    total: float


@dataclass(frozen=True)
class Departure:
    """Where a variant departs from its reference.

    Args:
        stages: every stage, in order.
        worst: the place of the one that is worst of its own.
        matches: the operators of that stage, in order.
        culprit: the place of the operator among them at which it departs; None if none does.
        bound: the vector relative error from which a stage is said to depart.
    """

    stages: tuple[StageError, ...]
    worst: int
    matches: tuple[MatchedOperator, ...]
    culprit: int | None
    bound: float

    @property
    def own(self) -> bool:
        """Whether some stage departs of its own; NaN departs."""
        return not self.stages[self.worst].own <= self.bound

    @property
    def departs(self) -> bool:
        """Whether some stage departs, of its own or together with those before it; NaN departs."""
        return not all(row.own <= self.bound and row.total <= self.bound for row in self.stages)

    @property
    def fault(self) -> str:
        """The class of fault that the departing operator speaks for; empty where none departs of its own."""
        if not self.own:
            return ""
        found = None if self.culprit is None else self.matches[self.culprit]
        if found is None:
            return "operator"
        if found.operator in _BY_OPERATOR:
            return _BY_OPERATOR[found.operator]
        return "weights" if found.weights else "operator"

    def sentence(self, variant: str) -> str:
        """Say it in a sentence."""
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
    """Return the greatest value; what is not a number is greater than any."""
    return max((math.inf if math.isnan(value) else value for value in values), default=0.0)


def distance(actual: Arrays, expected: Arrays) -> float:
    """Return the vector relative error of the worst output and image; infinite for NaN and other shapes."""
    if any(name not in actual or actual[name].shape != expected[name].shape for name in expected):
        return math.inf
    pairs = [pair for name in expected for pair in zip(actual[name], expected[name], strict=True)]
    return _greatest(vector_relative_error(a.astype("f8"), e.astype("f8")) for a, e in pairs)


def traversed(reference: Stages, pixel_values: Array) -> Iterator[tuple[str, Arrays, Arrays]]:
    """Run a reference stage by stage; yield each stage's name, what goes into it, and what it gives."""
    found: Arrays = {INPUT: pixel_values}
    for place, name in enumerate(reference.names):
        given, found = found, reference.run(place, found)
        yield name, given, found


def localise(
    reference: TorchStages, variant: Stages, pixel_values: Array, bound: float, first: bool, say: Say
) -> Departure:
    """Find where a variant departs from its reference.

    Args:
        reference: the reference in stages.
        variant: the variant in stages, as many.
        pixel_values: float32 (B, 3, H, W).
        bound: the vector relative error from which on something is said to depart.
        first: whether the operator is the first that departs; else the one at which the error grows most, as
            where every operator rounds.
        say: takes progress.
    """
    actual: Arrays = {INPUT: pixel_values}
    rows: list[StageError] = []
    worst, into = 0, actual
    for place, (name, given, expected) in enumerate(traversed(reference, pixel_values)):
        own = distance(variant.run(place, given), expected)
        actual = variant.run(place, actual)
        rows.append(StageError(name, own, distance(actual, expected)))
        say(f"{name}: {own:.1e} in this stage alone, {rows[-1].total:.1e} accumulated")
        if own > rows[worst].own:
            worst, into = place, given
    say(f"operator by operator in {rows[worst].stage}")
    matches = match_operators(
        variant.steps(worst, into), lambda take: reference.visit(worst, into, take), bound
    )
    culprit = (first_departure if first else greatest_growth)(matches)
    return Departure(tuple(rows), worst, tuple(matches), culprit, bound)
