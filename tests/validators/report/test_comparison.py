from __future__ import annotations

import math

from made_reports import output, timing, variant

from vconv.types import Status
from vconv.validators.report import comparison
from vconv.validators.report.rows import LatencyRow


def measured(batch: int) -> LatencyRow:
    interval, warnings, samples = [1.9, 2.1], ["wide spread"], [2.0] * 10
    return timing(
        batch,
        2.0,
        runs=10,
        mean_ms=2.5,
        images_per_second=400.0,
        std_ms=1.0,
        p50_ms_interval=interval,
        warnings=warnings,
        samples_ms=samples,
    )


def test_a_row_is_a_variant_and_batch_with_the_worst_of_its_outputs() -> None:
    outputs = {
        "cls": output(cosine=0.9, vector_relative_error=1e-6),
        "patches": output(cosine=0.8, vector_relative_error=1e-7),
    }
    given = variant("onnx-fp32", measured(1), measured(8), outputs=outputs)
    rows = comparison.rows([given], {"a": "synthetic:0 (synthetic: not trained weights)"})
    assert [row.batch for row in rows] == [1, 8]
    for row in rows:
        assert (row.cosine, row.vector_relative_error) == (0.8, 1e-6)
        assert (row.passed, row.status, row.reason) == (True, "passed", "")
        assert row.weights == "synthetic:0 (synthetic: not trained weights)"
        assert (row.p50_ms, row.mean_ms, row.images_per_second) == (2.0, 2.5, 400.0)
        assert (row.p50_ms_interval, row.warnings) == ((1.9, 2.1), ("wide spread",))
        assert row.samples_ms == (2.0,) * 10


def test_a_variant_that_was_not_timed_or_compared_has_a_row_with_nothing_in_it() -> None:
    given = variant("onnx-fp32", status=Status.SKIPPED, reason="no such engine")
    (row,) = comparison.rows([given], {"a": "folder:1"})
    assert (row.passed, row.reason) == (False, "no such engine")
    assert [getattr(row, key) for key in ("batch", "p50_ms", "cosine", "vector_relative_error")] == [None] * 4


def test_a_metric_that_is_no_number_at_one_output_is_none_in_the_row() -> None:
    outputs = {
        "cls": output(cosine=0.9, vector_relative_error=math.inf),
        "patches": output(cosine=0.8, vector_relative_error=1e-7),
    }
    (row,) = comparison.rows([variant("onnx-fp32", outputs=outputs)], {"a": "folder:1"})
    assert (row.cosine, row.vector_relative_error) == (0.8, None)
