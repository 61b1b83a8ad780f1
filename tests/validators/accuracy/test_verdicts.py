from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from vconv.types import Array, Status
from vconv.validators.accuracy.limits import TABLES, Limit
from vconv.validators.accuracy.verdicts import OutputVerdict, judge, judge_runs, overall

LIMITS = {
    f"{level} {' on '.join(key)}": limit for level, table in TABLES.items() for key, limit in table.items()
}
BOUNDS = [(name, key) for name, limit in LIMITS.items() for key in limit.bounds]
LOOSE = Limit({"vector_relative_error": 1e-2}, "for these tests")


def expected_outputs() -> dict[str, Array]:
    generator = np.random.default_rng(5)
    return {"cls": generator.standard_normal((3, 32)), "patches": generator.standard_normal((3, 9, 32))}


def scaled(expected: Array, bound: float) -> Array:
    """Move every image by ``bound`` of its length, in its own direction."""
    return expected * (1 + bound)


def turned(expected: Array, cosine: float) -> Array:
    """Turn every token by the angle of this cosine, its length kept."""
    across = np.random.default_rng(6).standard_normal(expected.shape)
    square = (expected**2).sum(-1, keepdims=True)
    across -= expected * (across * expected).sum(-1, keepdims=True) / square
    across *= np.sqrt(square) / np.linalg.norm(across, axis=-1, keepdims=True)
    return cosine * expected + math.sqrt(1 - cosine**2) * across


AT_BOUND: dict[str, Callable[[Array, float], Array]] = {
    "vector_relative_error": scaled,
    "relative_error": scaled,
    "cosine": turned,
    "token_cosine_min": turned,
}
"""By metric: what makes an output whose metric has a given value. A limit with a new metric needs a row."""


@pytest.mark.parametrize(("name", "key"), BOUNDS)
def test_an_output_just_inside_a_bound_passes(name: str, key: str) -> None:
    expected, bound = expected_outputs(), LIMITS[name].bounds[key]
    inside = bound * (1 - 1e-6) if "cosine" not in key else bound + 1e-6 * (1 - bound)
    actual = {output: AT_BOUND[key](value, inside) for output, value in expected.items()}
    verdicts = judge(actual, expected, Limit({key: bound}, "one bound"))
    assert {verdict.status for verdict in verdicts.values()} == {Status.PASSED}


@pytest.mark.parametrize(("name", "key"), BOUNDS)
def test_an_output_just_outside_a_bound_fails_and_says_so(name: str, key: str) -> None:
    expected, bound = expected_outputs(), LIMITS[name].bounds[key]
    outside = bound * (1 + 1e-6) if "cosine" not in key else bound - 1e-6 * (1 - bound)
    actual = {output: AT_BOUND[key](value, outside) for output, value in expected.items()}
    verdicts = judge(actual, expected, LIMITS[name])
    assert overall(verdicts) is Status.FAILED
    for verdict in verdicts.values():
        assert verdict.status is Status.FAILED
        assert any(reason.startswith(f"{key} is ") for reason in verdict.reasons)
        assert verdict.metrics


@pytest.mark.parametrize("name", LIMITS)
def test_equal_outputs_pass_every_limit(name: str) -> None:
    verdicts = judge(expected_outputs(), expected_outputs(), LIMITS[name])
    assert overall(verdicts) is Status.PASSED
    assert not any(verdict.reasons for verdict in verdicts.values())


@dataclass(frozen=True)
class Fault:
    """Something that is wrong with ``cls`` before any metric is looked at."""

    inflict: Callable[[dict[str, Array]], None]
    reason: str
    of_reference: bool = False


def lose(outputs: dict[str, Array]) -> None:
    del outputs["cls"]


def bad_value(value: float) -> Callable[[dict[str, Array]], None]:
    def inflict(outputs: dict[str, Array]) -> None:
        outputs["cls"][2, 31] = value

    return inflict


FAULTS = {
    "missing": Fault(lose, "the output is missing"),
    "wrong shape": Fault(lambda outputs: outputs.update(cls=outputs["cls"][:, :31]), "the shape is [3, 31]"),
    "one image less": Fault(lambda outputs: outputs.update(cls=outputs["cls"][:2]), "the shape is [2, 32]"),
    "one image for all": Fault(
        lambda outputs: outputs.update(cls=outputs["cls"][:1]), "the shape is [1, 32]"
    ),
    "one axis more": Fault(
        lambda outputs: outputs.update(cls=outputs["cls"][None]), "the shape is [1, 3, 32]"
    ),
    "one channel more": Fault(
        lambda outputs: outputs.update(cls=np.pad(outputs["cls"], ((0, 0), (0, 1)))), "the shape is [3, 33]"
    ),
    "a finer type than the reference's": Fault(
        lambda outputs: outputs.update(cls=outputs["cls"].astype(np.float32)),
        "the type is float64, not float32",
        True,
    ),
    "wrong type": Fault(
        lambda outputs: outputs.update(cls=outputs["cls"].astype(np.float32)),
        "the type is float32, not float64",
    ),
    "nan": Fault(bad_value(math.nan), "the variant has 1 NaN or Inf of 96"),
    "inf": Fault(bad_value(math.inf), "the variant has 1 NaN or Inf of 96"),
    "minus inf": Fault(bad_value(-math.inf), "the variant has 1 NaN or Inf of 96"),
    "nan in the reference": Fault(bad_value(math.nan), "the reference has 1 NaN or Inf of 96", True),
}


@pytest.mark.parametrize("name", FAULTS)
def test_an_output_that_cannot_be_compared_fails_unmeasured_and_alone(name: str) -> None:
    fault, actual, expected = FAULTS[name], expected_outputs(), expected_outputs()
    fault.inflict(expected if fault.of_reference else actual)
    verdicts = judge(actual, expected, LOOSE)
    assert verdicts["cls"].status is Status.FAILED
    assert fault.reason in verdicts["cls"].reasons[0]
    assert not verdicts["cls"].metrics
    assert verdicts["patches"].status is Status.PASSED
    assert overall(verdicts) is Status.FAILED


def test_a_type_is_known_by_what_it_is_and_not_by_which_object_says_so() -> None:
    copied = {
        name: value.astype(np.dtype(value.dtype, copy=True)) for name, value in expected_outputs().items()
    }
    assert copied["cls"].dtype is not expected_outputs()["cls"].dtype
    assert overall(judge(copied, expected_outputs(), LOOSE)) is Status.PASSED


def test_nan_in_both_is_not_agreement() -> None:
    actual, expected = expected_outputs(), expected_outputs()
    for outputs in (actual, expected):
        outputs["cls"][0, 0] = math.nan
    verdict = judge(actual, expected, LOOSE)["cls"]
    assert verdict.status is Status.FAILED
    assert len(verdict.reasons) == 2


def test_an_output_that_the_reference_does_not_have_fails() -> None:
    actual = {**expected_outputs(), "logits": np.zeros((3, 10))}
    verdicts = judge(actual, expected_outputs(), LOOSE)
    assert verdicts["logits"].status is Status.FAILED
    assert verdicts["logits"].reasons == ("the reference has no such output",)
    assert overall(verdicts) is Status.FAILED


def test_every_bound_that_is_broken_is_named() -> None:
    verdict = judge({"cls": np.ones((1, 4)) * 2}, {"cls": np.ones((1, 4))}, TABLES["card"]["fp32", "fp32"])
    assert [reason.split()[0] for reason in verdict["cls"].reasons] == [
        "vector_relative_error",
        "relative_error",
    ]


@pytest.mark.parametrize(("seen", "status"), [(3, "failed"), (4, "passed")])
def test_a_bound_on_the_top_class_is_held_against_logits_and_against_nothing_else(
    seen: int, status: str
) -> None:
    expected = {"cls": np.ones((1, 4)), "logits": np.arange(5.0)[None]}
    actual = {"cls": -np.ones((1, 4)), "logits": np.eye(5)[[seen]]}
    verdicts = judge(actual, expected, Limit({"top1_match": 1.0}, "one bound"))
    assert verdicts["cls"].status is Status.PASSED
    assert verdicts["logits"].status == status
    assert verdicts["logits"].reasons == (("top1_match is 0, the limit 1",) if seen == 3 else ())


def test_one_bad_image_fails_the_batch() -> None:
    expected, actual = expected_outputs(), expected_outputs()
    actual["cls"][1] *= 1.1
    assert judge(actual, expected, LOOSE)["cls"].metrics["vector_relative_error"] == pytest.approx(0.1)
    assert overall(judge(actual, expected, LOOSE)) is Status.FAILED


def wrong_by(factor: float) -> dict[str, Array]:
    return {name: value * (1 + factor) for name, value in expected_outputs().items()}


@pytest.mark.parametrize("order", [(0.001, 0.5), (0.5, 0.001)], ids=["last", "first"])
def test_of_several_runs_the_worst_counts(order: tuple[float, float]) -> None:
    verdicts = judge_runs([wrong_by(factor) for factor in order], expected_outputs(), LOOSE)
    assert overall(verdicts) is Status.FAILED
    for verdict in verdicts.values():
        assert verdict.metrics["vector_relative_error"] == pytest.approx(0.5)
        assert verdict.reasons


def test_metrics_are_the_worst_over_runs_that_pass() -> None:
    verdicts = judge_runs([wrong_by(0.001), wrong_by(0.002)], expected_outputs(), LOOSE)
    assert overall(verdicts) is Status.PASSED
    assert verdicts["cls"].metrics["vector_relative_error"] == pytest.approx(0.002)


@pytest.mark.parametrize("place", [0, 1])
def test_a_run_that_cannot_be_compared_fails_whatever_the_other_does(place: int) -> None:
    runs = [expected_outputs(), expected_outputs()]
    runs[place]["cls"][0, 0] = math.nan
    verdicts = judge_runs(runs, expected_outputs(), LOOSE)
    assert verdicts["cls"].status is Status.FAILED
    assert "NaN" in verdicts["cls"].reasons[0]


def test_of_several_runs_that_fail_the_first_says_why() -> None:
    verdicts = judge_runs([wrong_by(factor) for factor in (0.001, 0.5, 0.7)], expected_outputs(), LOOSE)
    for verdict in verdicts.values():
        assert verdict.reasons == ("vector_relative_error is 0.5, the limit 0.01",)
        assert verdict.metrics["vector_relative_error"] == pytest.approx(0.7)


@pytest.mark.parametrize("place", [0, 1])
def test_an_output_that_only_one_run_has_fails(place: int) -> None:
    runs = [expected_outputs(), expected_outputs()]
    runs[place]["logits"] = np.zeros((3, 10))
    assert overall(judge_runs(runs, expected_outputs(), LOOSE)) is Status.FAILED


def test_nothing_compared_is_incomplete() -> None:
    assert overall({}) is Status.INCOMPLETE
    assert overall(judge({}, {}, LOOSE)) is Status.INCOMPLETE


@pytest.mark.parametrize(
    ("statuses", "whole"),
    [("passed", "passed"), ("passed passed", "passed"), ("passed failed", "failed"), ("failed", "failed")],
)
def test_one_failed_output_fails_the_variant(statuses: str, whole: str) -> None:
    verdicts = {str(i): OutputVerdict(Status(status), (), {}) for i, status in enumerate(statuses.split())}
    assert overall(verdicts) is Status(whole)
