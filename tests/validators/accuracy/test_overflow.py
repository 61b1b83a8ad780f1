"""Overflows on an NPU that saturates: all numbers are finite, so that their values are judged."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from vconv.runtime.simulation.arithmetic import PROFILES, Arithmetic
from vconv.runtime.simulation.graphs import rewritten
from vconv.types import Array, Status
from vconv.validators.accuracy.limits import STRICT, TABLES, Limit
from vconv.validators.accuracy.overflow import signs
from vconv.validators.accuracy.verdicts import judge

FP16 = STRICT["fp32", "fp16"]
DIRECTION = Limit({"cosine": 0.999}, "for these tests: a limit that does not see lengths")


def outlier(value: float) -> Array:
    """Return one output of two images with an outlier in the first; all other elements are near 1."""
    found = np.random.default_rng(3).standard_normal((2, 5, 64)).astype(np.float32)
    found[0, 0, 0] = value
    return found


def run(weights: Array, arithmetic: Arithmetic | None, images: Array) -> Array:
    """Run two products, first with the weights and then with the identity, on a simulated NPU."""
    nodes = [
        helper.make_node("MatMul", ["x", "weights"], ["large"]),
        helper.make_node("MatMul", ["large", "identity"], ["y"]),
    ]
    feeds = {"x": images, "weights": weights, "identity": np.eye(64, dtype=np.float32)}
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, one.shape) for name, one in feeds.items()]
    graph = helper.make_graph(
        nodes, "g", given, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    if arithmetic:
        model, changed = rewritten(model, arithmetic)
        assert changed == Counter({"matmul": 2})
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["y"], feeds)[0])


def test_an_overflow_that_saturates_passes_every_check_of_finiteness_and_is_caught_by_its_value() -> None:
    images, weights = outlier(70.0), np.eye(64, dtype=np.float32)
    weights[0, 0] = 1e3
    expected = run(weights, None, images)
    saturating = run(weights, PROFILES["310p"], images)
    with_inf = run(weights, Arithmetic("tanh", "fp16", "fp16"), images)
    assert expected.max() == pytest.approx(70000.0)
    assert saturating.max() == 65504.0
    assert np.isfinite(saturating).all() and not np.isfinite(with_inf).all()
    loose = Limit({"vector_relative_error": 0.1, "token_cosine_min": 0.98}, "the limit of int8")
    verdict = judge({"y": saturating}, {"y": expected}, loose)["y"]
    assert verdict.metrics["vector_relative_error"] < 0.1, "the limit alone does not see it"
    assert verdict.status is Status.FAILED
    assert verdict.reasons == (
        "1 of 640 elements are at 65504, the greatest float16 number, and the reference's are not: "
        "an overflow that saturated",
    )
    assert judge({"y": with_inf}, {"y": expected}, loose)["y"].reasons[0].startswith("the variant has ")


def test_an_overflow_within_the_network_is_left_to_the_bounds() -> None:
    images, weights = outlier(70.0), np.eye(64, dtype=np.float32)
    weights[0, 0] = 1e3
    expected, actual = run(weights, None, images), run(weights, PROFILES["310p"], images)
    for array in (expected, actual):
        array[..., 0] /= 1e3
    verdict = judge({"y": actual}, {"y": expected}, FP16)["y"]
    assert np.isfinite(actual).all() and actual.max() < expected.max()
    assert verdict.status is Status.FAILED
    assert verdict.reasons[0].startswith("vector_relative_error is ")


def test_the_same_network_within_float16_raises_no_alarm_on_the_same_device() -> None:
    images, weights = outlier(60.0), np.eye(64, dtype=np.float32)
    weights[0, 0] = 1e3
    expected = run(weights, None, images)
    verdict = judge({"y": run(weights, PROFILES["310p"], images)}, {"y": expected}, FP16)["y"]
    assert (verdict.status, verdict.reasons) == (Status.PASSED, ())


def test_both_ends_of_float16_are_seen_whatever_the_limit_bounds() -> None:
    expected = {"y": outlier(-9e4)}
    verdict = judge({"y": outlier(-65504.0)}, expected, DIRECTION)["y"]
    assert verdict.status is Status.FAILED and "1 of 640 elements are at 65504" in verdict.reasons[0]


@pytest.mark.parametrize("value", [65504.0, 65490.0, 65519.0])
def test_a_reference_that_rounds_to_the_greatest_number_is_no_overflow(value: float) -> None:
    assert not [*signs(outlier(65504.0), outlier(value), 1e-2)]


@pytest.mark.parametrize(
    ("greatest", "expected"),
    [
        (400.0, "its greatest number is 400, the reference's 10: out of range"),
        (12.0, ""),
    ],
    ids=["far", "near"],
)
def test_numbers_far_out_of_the_references_range_are_named(greatest: float, expected: str) -> None:
    assert "".join(signs(outlier(greatest), outlier(10.0), 1e-2)) == expected
    assert not [*signs(outlier(greatest), outlier(10.0), None)], "no bound, no range"


@pytest.mark.parametrize("limit", STRICT.values(), ids=[" on ".join(pair) for pair in STRICT])
def test_what_is_out_of_range_would_also_exceed_the_bound(limit: Limit) -> None:
    bound = limit.bounds["vector_relative_error"]
    actual, expected = outlier(400.0), outlier(10.0)
    assert [*signs(actual, expected, bound)]
    error = np.linalg.norm(actual[0] - expected[0]) / np.linalg.norm(expected[0])
    assert error > bound


@pytest.mark.parametrize("table", TABLES)
def test_a_sound_variant_at_its_bound_shows_no_sign(table: str) -> None:
    for limit in TABLES[table].values():
        bound, expected = limit.bounds["vector_relative_error"], outlier(6e4)
        assert not [*signs(expected * np.float32(1 + bound), expected, bound)]
