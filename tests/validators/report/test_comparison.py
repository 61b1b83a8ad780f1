from __future__ import annotations

from typing import Any

from vconv.types import Status
from vconv.validators.report import comparison


def variant(**values: Any) -> dict[str, Any]:
    row = {
        "artifact": "a",
        "variant": "onnx-fp32",
        "engine": "onnxruntime",
        "device": "cpu",
        "simulated": False,
    }
    bare = {"status": Status.PASSED, "outputs": {}, "latency": [], "timing_refused": None}
    return {**row, **bare, **values}


def timing(batch: int) -> dict[str, Any]:
    return {
        "batch": batch,
        "runs": 10,
        "p50_ms": 2.0,
        "mean_ms": 2.5,
        "images_per_second": 400.0,
        "std_ms": 1.0,
        "p50_ms_interval": [1.9, 2.1],
        "warnings": ["wide spread"],
        "samples_ms": [2.0] * 10,
    }


def test_a_row_is_a_variant_and_batch_with_the_worst_of_its_outputs() -> None:
    outputs = {
        "cls": {"cosine": 0.9, "vector_relative_error": 1e-6},
        "patches": {"cosine": 0.8, "vector_relative_error": 1e-7},
    }
    given = variant(outputs=outputs, latency=[timing(1), timing(8)])
    rows = comparison.rows([given], {"a": "synthetic:0 (synthetic: not trained weights)"})
    assert [row["batch"] for row in rows] == [1, 8]
    for row in rows:
        assert (row["cosine"], row["vector_relative_error"]) == (0.8, 1e-6)
        assert (row["passed"], row["status"], row["reason"]) == (True, "passed", "")
        assert row["weights"] == "synthetic:0 (synthetic: not trained weights)"
        assert (row["p50_ms"], row["mean_ms"], row["images_per_second"]) == (2.0, 2.5, 400.0)
        assert (row["p50_ms_interval"], row["warnings"]) == ([1.9, 2.1], ["wide spread"])
        assert row["samples_ms"] == [2.0] * 10


def test_a_variant_that_was_not_timed_or_compared_has_a_row_with_nothing_in_it() -> None:
    given = variant(status=Status.SKIPPED, reason="no such engine")
    (row,) = comparison.rows([given], {"a": "folder:1"})
    assert (row["passed"], row["reason"]) == (False, "no such engine")
    assert [row[key] for key in ("batch", "p50_ms", "cosine", "vector_relative_error")] == [None] * 4
