from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from vconv.runtime.stages.base import TOKENS, Step
from vconv.types import Array
from vconv.validators.bisect.matching import (
    MatchedOperator,
    first_departure,
    greatest_growth,
    match_operators,
)

TOLERANCE = 1e-5
X = np.random.default_rng(0).standard_normal((2, 5, 4)).astype(np.float32)


def step(name: str, operator: str, value: Array, *inputs: str) -> Step:
    return Step(name, operator, f"node_{name}", inputs, (), value)


REFERENCE = [
    step("r0", "mul", 2 * X, TOKENS),
    step("r1", "exp", np.exp(X), "r0"),
    step("r2", "add", np.exp(X) + 2 * X, "r1", "r0"),
]


def matched(*steps: Step, reference: list[Step] = REFERENCE) -> list[MatchedOperator]:
    def visit(take: Callable[[Step], None]) -> None:
        for one in reference:
            take(one)

    return match_operators(steps, visit, TOLERANCE)


def test_the_same_values_agree_whatever_the_operators_are_called() -> None:
    found = matched(
        step("a", "Mul", 2 * X, TOKENS),
        step("b", "Exp", np.exp(X), "a"),
        step("c", "Add", np.exp(X) + 2 * X, "b", "a"),
    )
    assert [one.agrees for one in found] == [True] * 3
    assert [one.counterpart for one in found] == ["mul node_r0", "exp node_r1", "add node_r2"]
    assert [one.error for one in found] == [0.0] * 3
    assert [one.inputs for one in found] == [(), (0,), (1, 0)]
    assert first_departure(found) is None


def test_a_value_without_a_counterpart_agrees_if_what_is_made_of_it_does() -> None:
    found = matched(
        step("a", "Sqrt", X**3 + 40, TOKENS),
        step("b", "Exp", np.exp(X), "a"),
    )
    assert found[0].error is None
    assert [one.agrees for one in found] == [True, True]


def test_the_first_operator_that_departs_is_the_one_whose_inputs_agree() -> None:
    wrong = np.exp(X) * 1.001
    found = matched(
        step("a", "Mul", 2 * X, TOKENS),
        step("b", "Exp", wrong, "a"),
        step("c", "Add", wrong + 2 * X, "b", "a"),
    )
    assert [one.agrees for one in found] == [True, False, False]
    assert first_departure(found) == 1
    assert found[1].error == pytest.approx(1e-3, rel=1e-3)


def test_a_value_that_is_wrong_in_part_departs_though_what_is_made_of_the_right_part_agrees() -> None:
    wrong = 2 * X
    wrong[:, :, 3] *= 2
    reference = [step("r0", "mul", 2 * X, TOKENS), step("r1", "slice", 2 * X[:, :, :2], "r0")]
    reference.append(step("r2", "slice", 2 * X[:, :, 2:], "r0"))
    found = matched(
        step("a", "Mul", wrong, TOKENS),
        step("b", "Slice", wrong[:, :, :2], "a"),
        step("c", "Slice", wrong[:, :, 2:], "a"),
        reference=reference,
    )
    assert [one.agrees for one in found] == [False, True, False]
    assert first_departure(found) == 0


def test_an_operator_that_gives_what_it_was_given_is_not_taken_for_its_input() -> None:
    found = matched(step("a", "Mul", 2 * X, TOKENS), step("b", "Exp", 2 * X, "a"))
    assert [one.agrees for one in found] == [True, False]
    assert first_departure(found) == 1


def test_an_operator_of_layout_may_give_what_it_was_given() -> None:
    found = matched(step("a", "Mul", 2 * X, TOKENS), step("b", "Reshape", (2 * X).reshape(10, 4), "a"))
    assert [one.agrees for one in found] == [True, True]


def test_values_that_are_not_numbers_agree_with_nothing() -> None:
    bad = 2 * X
    bad[0, 0, 0] = np.nan
    found = matched(step("a", "Mul", bad, TOKENS))
    assert (found[0].agrees, found[0].error) == (False, None)
    assert first_departure(found) == 0


def test_zeros_agree_with_zeros_alone() -> None:
    reference = [step("r0", "zero", np.zeros((2, 2), np.float32), TOKENS)]
    same = matched(step("a", "Zero", np.zeros((2, 2), np.float32), TOKENS), reference=reference)
    other = matched(step("a", "Zero", np.full((2, 2), 1e-3, np.float32), TOKENS), reference=reference)
    assert (same[0].agrees, other[0].agrees) == (True, False)


def test_the_error_grows_most_where_it_rises_most_over_the_inputs() -> None:
    found = matched(
        step("a", "Mul", 2 * X * 1.001, TOKENS),
        step("b", "Exp", np.exp(X) * 1.004, "a"),
        step("c", "Add", (np.exp(X) + 2 * X) * 1.0045, "b", "a"),
    )
    assert greatest_growth(found) == 1
    assert greatest_growth([]) is None
