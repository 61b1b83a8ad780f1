"""The typed report: frozen, the same after a round trip, and read from what version 0.1.0 wrote."""

from __future__ import annotations

import copy
import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_reports import bisection, comparison, output, report, timing, upgraded, variant
from pydantic import ValidationError

from vconv.types import Status
from vconv.validators.report.bisection import Bisection
from vconv.validators.report.comparison import Comparison
from vconv.validators.report.document import Report, ValidationResult
from vconv.validators.report.log import Log
from vconv.validators.report.model import Document
from vconv.validators.report.page import page
from vconv.validators.report.page.gallery import Gallery
from vconv.validators.report.rows import LimitRow, OutputRow, VariantRow
from vconv.validators.report.saving import ReportFile
from vconv.validators.report.upgrade import UnreadableReportError, read_report

RECORDED = pytest.mark.parametrize("name", ["measured", "simulated"])


@pytest.fixture
def old(name: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    """A report as version 0.1.0 wrote it."""
    found: dict[str, Any] = request.getfixturevalue(name)
    return found


def row() -> VariantRow:
    outputs = {"cls": output(cosine=0.5, reasons=["cosine is 0.5"])}
    limit = {"precision": "fp32", "arithmetic": "fp32", "bounds": {"cosine": 0.9}, "source": "a test"}
    return variant("a", timing(1, 2.0), outputs=outputs, limit=limit, fallbacks={"Erf": 1})


CHANGES: dict[str, Callable[[Any], Any]] = {
    "a field": lambda row: setattr(row, "status", Status.FAILED),
    "a field of an output": lambda row: setattr(row.outputs["cls"], "floor", 1.0),
    "a metric": lambda row: row.outputs["cls"].metrics.update(cosine=1.0),
    "an output": lambda row: row.outputs.pop("cls"),
    "a bound": lambda row: row.limit.bounds.__setitem__("cosine", 0.1),
    "a figure of a latency": lambda row: setattr(row.latency[0], "p50_ms", 1.0),
    "a new field": lambda row: setattr(row, "rank", 1),
    "a count": lambda row: row.fallbacks.clear(),
    "a key": lambda row: row.fallbacks.__delitem__("Erf"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_row_cannot_be_changed(what: str) -> None:
    found = row()
    with pytest.raises((ValidationError, TypeError)):
        CHANGES[what](found)
    assert found == row()


def test_a_row_has_tuples_where_its_json_has_lists() -> None:
    found = row()
    assert isinstance(found.latency, tuple) and isinstance(found.outputs["cls"].reasons, tuple)
    assert found.as_json()["outputs"]["cls"]["reasons"] == ["cosine is 0.5"]


def test_a_row_can_be_copied_and_pickled() -> None:
    assert copy.deepcopy(row()) == pickle.loads(pickle.dumps(row())) == row()


@pytest.mark.parametrize("figure", [math.inf, -math.inf, math.nan])
def test_what_json_has_no_number_for_is_none(figure: float) -> None:
    found = OutputRow.model_validate(output(cosine=figure, mse=0.25, floor=figure))
    assert (found.metrics, found.floor) == ({"cosine": None, "mse": 0.25}, None)
    assert OutputRow.model_validate_json(json.dumps(found.as_json(), allow_nan=False)) == found


def test_an_output_that_was_not_compared_has_no_metrics_in_json() -> None:
    found = OutputRow.model_validate(output(status="failed", reasons=["the output is missing"]))
    assert found.metrics == {} and found.vector_relative_error is None
    assert found.as_json() == {
        "status": "failed",
        "shape": [1, 2],
        "floor": None,
        "limit": None,
        "to_stock_original": None,
        "reasons": ["the output is missing"],
    }


@pytest.mark.parametrize("key", ["colour", "smoke", "max_absolute"])
def test_a_key_that_is_not_declared_is_refused(key: str) -> None:
    with pytest.raises(ValidationError, match=key):
        VariantRow.model_validate({**row().as_json(), key: 1})
    with pytest.raises(ValidationError, match=key):
        OutputRow.model_validate({**output(), key: 1})


@pytest.mark.parametrize(
    ("made", "kind"),
    [(report(row()), "validate"), (comparison({"variant": "a"}), "compare"), (bisection(), "bisect")],
    ids=["validate", "compare", "bisect"],
)
def test_a_report_read_back_from_its_json_is_the_same(made: Document, kind: str) -> None:
    text = json.dumps(made.as_json(), allow_nan=False)
    assert read_report(json.loads(text), kind) == made


KEPT = sorted((Path(__file__).parents[2] / "data" / "artifact-0.1.0" / "reports").glob("*.json"))


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_every_kind_of_report_of_0_1_0_is_read(path: Path) -> None:
    content = json.loads(path.read_text())
    found = read_report(content, path.stem.rpartition("-")[2])
    assert isinstance(found, Report | Comparison | Bisection)
    assert (content["schema_version"], found.schema_version) == (1, 2)
    assert (found.time, found.status, found.limits.within) == (
        content["time"],
        content["status"],
        content["limits"]["within"],
    )


def test_reports_of_every_kind_were_kept() -> None:
    assert {path.stem.rpartition("-")[2] for path in KEPT} == {"validate", "compare", "bisect"}


@RECORDED
def test_a_report_of_0_1_0_keeps_every_figure_under_its_key(name: str, old: dict[str, Any]) -> None:
    found = upgraded(old)
    content = found.as_json()
    assert content["schema_version"] == 2
    for key, value in old.items():
        if key not in ("variants", "reference"):
            assert content[key] == value, key
    assert content["reference"] == {**old["reference"], "recorded": None}
    for one, before in zip(content["variants"], old["variants"], strict=True):
        assert one["output_summary"] == before["smoke"]
        for key in before.keys() - {"smoke", "outputs"}:
            assert one[key] == before[key], key
        for output_name, figures in before["outputs"].items():
            kept = one["outputs"][output_name]
            assert {key: kept[key] for key in figures} == figures
            assert {kept[key] or None for key in kept.keys() - figures.keys()} <= {None}
    assert read_report(json.loads(json.dumps(content)), "validate") == found


@RECORDED
def test_a_variant_of_0_1_0_gets_the_limit_that_it_was_held_to(name: str, old: dict[str, Any]) -> None:
    (limit,) = old["limits"]["rows"]
    original, *judged = upgraded(old).variants
    assert original.limit is None
    assert [row.limit for row in judged] == [LimitRow.model_validate(limit)] * 3


@RECORDED
def test_the_page_and_the_log_of_a_report_of_0_1_0_are_still_drawn(
    name: str, old: dict[str, Any], hang: Callable[[dict[str, Any]], Gallery]
) -> None:
    gallery = hang(old)
    found = upgraded(old)
    drawn = page.render(found, ReportFile("old.json", "0" * 64), gallery).decode()
    assert "all 3 judged variants kept to the reference" in drawn
    log = Log(lambda line: None).render(found)
    assert all(row.variant in drawn and row.variant in log for row in found.variants)


@pytest.mark.parametrize("version", [None, 1, 2])
def test_schema_versions_that_are_read(version: int | None) -> None:
    content = report().as_json()
    content["schema_version"] = version
    assert read_report(content, "validate") == report()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda content: {**content, "schema_version": 3}, "schema version 3"),
        (lambda content: {**content, "status": "well"}, "status: Input should be 'passed'"),
        (lambda content: {**content, "time": "20261399T000000"}, "time: Value error, time data"),
        (lambda content: {**content, "colour": "red"}, "colour: Extra inputs are not permitted"),
        (lambda content: {"schema_version": 1, "variants": []}, "KeyError: 'limits'"),
        (lambda content: [content], "it is not an object"),
    ],
)
def test_what_is_no_report_says_why(change: Callable[[Any], Any], why: str) -> None:
    with pytest.raises(UnreadableReportError, match=why):
        read_report(change(report().as_json()), "validate")
    with pytest.raises(UnreadableReportError, match="no reports of kind 'sweep'"):
        read_report(report().as_json(), "sweep")


def test_subscripts_give_the_json_form_and_warn() -> None:
    found = report(row())
    with pytest.warns(DeprecationWarning, match=r"report\['passed'\] is deprecated.* \.passed"):
        assert found["passed"] is True
    with pytest.warns(DeprecationWarning, match="variants"):
        (content,) = found["variants"]
    assert content == {**row().as_json(), "smoke": {}}
    with pytest.warns(DeprecationWarning, match="colour"), pytest.raises(KeyError):
        found["colour"]


def test_a_warning_points_at_the_line_with_the_subscript() -> None:
    with pytest.warns(DeprecationWarning, match="status") as caught:
        report()["status"]
    assert caught[0].filename == __file__


def test_what_validate_returns_is_the_report_and_where_it_lies(tmp_path: Path) -> None:
    where = {"report": "a.json", "log": "a.log", "page": "a.html", "card": None}
    found = ValidationResult.model_validate({**report(row()).as_json(), **where})
    assert isinstance(found, Report)
    assert found.as_json() == {**report(row()).as_json(), **where}
