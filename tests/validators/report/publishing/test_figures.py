"""The figures of results/accuracy_eval.json, and where each comes from."""

from __future__ import annotations

from typing import Any

import made_reports
import pytest
from made_reports import output, variant

from vconv.artifact.manifest import Manifest
from vconv.types import Status
from vconv.validators.report.card.evidence import SavedReport, newest
from vconv.validators.report.publishing.figures import accuracy_results, pointer, resolved

FILE = "reports/20261120T000000-validate.json"

POINTERS = [
    (("a",), "/a", 1),
    (("b", 1, "c"), "/b/1/c", 2),
    (("x/y",), "/x~1y", 3),
    (("~",), "/~0", 4),
    (("~1",), "/~01", 5),
    (("b", 7), "/b/7", None),
    (("b", "first"), "/b/first", None),
    (("a", "b"), "/a/b", None),
]


@pytest.mark.parametrize(("keys", "path", "value"), POINTERS)
def test_a_pointer_is_that_of_rfc_6901(keys: tuple[Any, ...], path: str, value: object) -> None:
    content = {"a": 1, "b": [0, {"c": 2}], "x/y": 3, "~": 4, "~1": 5}
    assert pointer(*keys) == path
    assert resolved(content, path) == value


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
def test_each_device_has_the_rows_that_are_its_own(made: Manifest) -> None:
    limit = {
        "precision": "fp32",
        "arithmetic": "fp32",
        "bounds": {"vector_relative_error": 1e-5},
        "source": "s",
    }
    row = variant(outputs={"cls": output(vector_relative_error=1e-6, cosine=None)}, limit=limit)
    there = variant(
        device="npu-sim", simulated=True, outputs={"cls": output(vector_relative_error=2e-4)}, limit=limit
    )
    report = made_reports.report(row, there)
    content = report.as_json()
    found = accuracy_results(made, "abc", newest([SavedReport(FILE, report)]), {FILE: content})
    kept = ("device", "simulated", "synthetic", "metric", "value", "path", "limit", "limit_path", "report")
    assert [tuple(figure[key] for key in kept) for figure in found["recorded"]] == [
        (
            *("cpu", False, True, "vector_relative_error", 1e-6),
            "/variants/0/outputs/cls/vector_relative_error",
            *(1e-5, "/variants/0/limit/bounds/vector_relative_error", FILE),
        ),
        (
            *("npu-sim", True, True, "vector_relative_error", 2e-4),
            "/variants/1/outputs/cls/vector_relative_error",
            *(1e-5, "/variants/1/limit/bounds/vector_relative_error", FILE),
        ),
    ]
    assert found["recomputed"] == []
    assert found["artifact"]["synthetic"] is True


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
@pytest.mark.parametrize(
    ("status", "reason", "told"),
    [
        ("skipped", "not judged: it is the reference", "reference"),
        ("skipped", "not judged: it is the original without patches", "not judged"),
        ("failed", "", "failed"),
    ],
    ids=["reference", "not judged", "failed"],
)
def test_a_status_is_in_the_words_of_the_card(made: Manifest, status: str, reason: str, told: str) -> None:
    measured = output(vector_relative_error=1e-6, status=Status(status))
    report = made_reports.report(variant(outputs={"cls": measured}, status=Status(status), reason=reason))
    evidence = newest([SavedReport(FILE, report)])
    found = accuracy_results(made, "abc", evidence, {FILE: report.as_json()})
    assert {figure["status"] for figure in found["recorded"]} == {told}
