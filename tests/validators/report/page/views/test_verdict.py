from __future__ import annotations

from typing import Any

from made_reports import output, report, variant

from vconv.types import Status
from vconv.validators.report.page.views.verdict import verdict

LIMIT = {"precision": "fp32", "arithmetic": "fp32", "bounds": {"vector_relative_error": 1e-5}, "source": "s"}


def stats(*rows: Any, **values: Any) -> dict[str, tuple[str, str]]:
    """Return the figures at the top of a page, by what they are."""
    found = verdict(report(*rows, **values))["stats"]
    return {one["what"]: (one["value"], one["aside"]) for one in found}


def test_an_output_that_is_no_number_is_said_in_words() -> None:
    outputs = {
        "cls": output(status=Status.FAILED, vector_relative_error=None, limit=1e-5),
        "pooled": output(vector_relative_error=1e-6, limit=1e-5),
    }
    row = variant("onnx-fp32", status=Status.FAILED, outputs=outputs, limit=LIMIT)
    found = stats(row, status=Status.FAILED)
    assert found["an output"] == ("no number", "or it could not be compared")
    assert "of a limit used, at most" not in found


def test_a_speed_that_is_not_ranked_is_said_in_words_with_the_reason() -> None:
    ranking = {"refused": "the machine was busy", "rows": [], "left_out": []}
    assert stats(variant(), ranking=ranking)["speed"] == ("not ranked", "the machine was busy")
