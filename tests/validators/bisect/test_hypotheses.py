from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from made_reports import variant

from vconv.precisions import FP32
from vconv.types import Array, Arrays, Check, Status
from vconv.validators.accuracy.golden import Reference
from vconv.validators.accuracy.limits import STRICT
from vconv.validators.accuracy.verdicts import judge
from vconv.validators.bisect.hypotheses import HYPOTHESES, FailedVariant, conclude, diagnose
from vconv.validators.faults.classes import CLASSES

LIMIT = STRICT["fp32", "fp32"]
REGISTERS, SIDE = 2, 4
PERIODS, POSITIONS = "original + authors' periods", "original + positions by the authors' kernel"
"""Names of references that are not the stock original."""
IMAGES = np.random.default_rng(0).standard_normal((2, 3, SIDE, SIDE)).astype(np.float32)


def network(images: Array) -> dict[str, Array]:
    """Compute something that has all outputs, and in which place and channel matter."""
    grown = np.exp(0.1 * images) * np.arange(1, SIDE + 1)[:, None]
    tokens = grown.reshape(len(images), 3, -1).swapaxes(1, 2) * np.array([1.0, 2.0, 5.0])
    before = np.stack([tokens.mean(1) * (3 + index) for index in range(1 + REGISTERS)], axis=1)
    whole = np.concatenate([before, tokens], axis=1).astype(np.float32)
    grid = normed(tokens).swapaxes(1, 2).reshape(len(images), 3, SIDE, -1)
    return {
        "pooled": np.tanh(whole[:, 0]),
        "cls": whole[:, 0],
        "patches": whole[:, 1 + REGISTERS :],
        "last_hidden_state": whole,
        "feature_map_1": grid.astype(np.float32),
        "raw_patches_1": tokens.astype(np.float32),
    }


def normed(tokens: Array) -> Array:
    """Compute a LayerNorm over the last axis, with a scale and a shift of each channel."""
    middle = tokens - tokens.mean(axis=-1, keepdims=True)
    return middle / tokens.std(axis=-1, keepdims=True) * np.array([2.0, 0.5, 3.0]) + np.array(
        [0.1, -1.0, 4.0]
    )


def without_norm(images: Array) -> Arrays:
    found = network(images)
    grid = found["raw_patches_1"].swapaxes(1, 2).reshape(found["feature_map_1"].shape)
    return {**found, "feature_map_1": grid}


STOCK = {name: value * np.float32(1.01) for name, value in network(IMAGES).items()}


def evidence(run: Callable[[Array], Arrays], name: str = PERIODS, precision: str = FP32) -> FailedVariant:
    expected = network(IMAGES)
    reference = Reference(name, IMAGES, expected, {}, {}, STOCK)
    actual = run(IMAGES)
    return FailedVariant(run, actual, reference, judge(actual, expected, LIMIT), LIMIT, precision)


def renamed(images: Array) -> Arrays:
    found = network(images)
    return {**found, "pooled": found["cls"], "cls": found["pooled"]}


def pooled_otherwise(images: Array) -> Arrays:
    found = network(images)
    return {**found, "pooled": found["patches"].mean(1)}


def one_early(images: Array) -> Arrays:
    found = network(images)
    return {**found, "patches": found["last_hidden_state"][:, REGISTERS:-1]}


def overflowing(images: Array) -> Arrays:
    """Compute in float16 what is too great for it."""
    with np.errstate(over="ignore"):
        return {
            name: (value * 3e4).astype(np.float16).astype(np.float32) / np.float32(3e4)
            for name, value in network(images).items()
        }


WRONG: dict[str, Callable[[Array], Arrays]] = {
    "overflow": overflowing,
    "output names": renamed,
    "final norm": without_norm,
    "pooling": pooled_otherwise,
    "token order": one_early,
    "rope periods": lambda images: {
        name: value * np.float32(1.01) for name, value in network(images).items()
    },
    "position embedding": lambda images: {
        name: value * np.float32(1.01) for name, value in network(images).items()
    },
    "height and width": lambda images: network(images.swapaxes(2, 3)),
    "channel order": lambda images: network(images[:, ::-1]),
}


@pytest.mark.parametrize("fault", HYPOTHESES)
def test_a_fault_is_named_by_its_hypothesis_alone(fault: str) -> None:
    name = POSITIONS if fault == "position embedding" else PERIODS
    failed = evidence(WRONG[fault], name, "fp16" if fault == "overflow" else FP32)
    assert failed.failed
    assert [name for name, hypothesis in HYPOTHESES.items() if hypothesis(failed)] == [fault]
    (found,) = diagnose(failed)
    assert found.fault == fault
    assert found.because


def test_every_hypothesis_has_a_wrong_variant_here() -> None:
    assert set(WRONG) == set(HYPOTHESES)


def test_a_norm_that_should_not_be_there_is_named_too() -> None:
    failed = evidence(
        lambda images: {**network(images), "raw_patches_1": normed(network(images)["raw_patches_1"])}
    )
    assert [found.because for found in diagnose(failed)] == [
        "raw_patches_1 has the final norm: it follows from the reference's by a LayerNorm, token by token"
    ]


def test_noise_is_explained_by_nothing() -> None:
    noise = np.random.default_rng(1).standard_normal

    def run(images: Array) -> Arrays:
        return {
            name: (value + 1e-2 * noise(value.shape)).astype(np.float32)
            for name, value in network(images).items()
        }

    assert diagnose(evidence(run)) == []


def test_outputs_that_are_not_numbers_or_missing_are_explained_by_nothing() -> None:
    bad = {name: np.full_like(value, np.nan) for name, value in network(IMAGES).items()}
    assert diagnose(evidence(lambda images: bad)) == []
    assert diagnose(evidence(lambda images: {"cls": network(images)["cls"] * 2})) == []


def test_an_overflow_is_that_of_float16_alone() -> None:
    (found,) = diagnose(evidence(overflowing, precision="fp16"))
    assert found.fault == "overflow"
    assert found.because.endswith("has Inf or NaN: a value is too large for float16")
    for precision in ("fp32", "bf16", "int8"):
        assert diagnose(evidence(overflowing, precision=precision)) == []


@pytest.mark.parametrize("missing", ["pooled", "cls", "patches", "last_hidden_state"])
def test_an_output_that_is_missing_is_looked_at_all_the_same(missing: str) -> None:
    def run(images: Array) -> Arrays:
        return {name: value for name, value in network(images).items() if name != missing}

    assert [found.fault for found in diagnose(evidence(run))] in ([], ["pooling"])


@pytest.mark.parametrize("shape", [(2, 16), (2, 16, 2), (2, 40, 3)])
def test_patches_of_another_shape_are_no_shifted_tokens(shape: tuple[int, ...]) -> None:
    def run(images: Array) -> Arrays:
        return {**network(images), "patches": np.ones(shape, np.float32)}

    assert HYPOTHESES["token order"](evidence(run)) == ""


def test_images_that_are_not_square_are_not_turned() -> None:
    wide = np.concatenate([IMAGES, IMAGES], axis=3)
    expected = {"patches": wide.reshape(2, -1, 3)}

    def run(images: Array) -> Arrays:
        assert images.shape == wide.shape
        return {"patches": expected["patches"] + 1}

    actual = run(wide)
    failed = FailedVariant(
        run, actual, Reference("x", wide, expected, {}, {}), judge(actual, expected, LIMIT), LIMIT
    )
    assert HYPOTHESES["height and width"](failed) == ""


def test_the_conclusion_has_each_class_once_the_most_telling_first() -> None:
    checks = [
        Check("a", Status.PASSED, "fine"),
        Check("b", Status.FAILED, "is wrong", "weights"),
        Check("c", Status.FAILED, "is wrong too", "activation"),
        Check("d", Status.FAILED, "again", "weights"),
    ]
    rows = [
        variant("v", diagnosis=[{"class": "token order", "because": "so"}]),
        variant("w"),
    ]
    found = conclude(checks, rows)
    assert [row.fault for row in found] == ["activation", "weights", "token order"]
    assert found[1].as_json() == {
        "class": "weights",
        "meaning": CLASSES["weights"],
        "where": "b",
        "because": "is wrong",
    }
    assert found[2].where == "v"
    assert conclude(checks[:1], rows[1:]) == []
