"""What an artifact's reports say: the newest of each kind, and never an error."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, BinaryIO

import made_reports
import pytest
from made_reports import comparison, report, timing

from vconv import documents
from vconv.errors import ArtifactError
from vconv.types import Status
from vconv.validators.report import saving
from vconv.validators.report.bisection import Bisection
from vconv.validators.report.history import entries, newest
from vconv.validators.report.rows import LatencyRow, VariantRow


def variant(name: str, *timings: LatencyRow, **more: Any) -> VariantRow:
    return made_reports.variant(name, *timings, **{"artifact": "", **more})


def ranked(variant: str, p50_ms: float, device: str = "cpu", batch: int = 1, **more: Any) -> dict[str, Any]:
    """Make a row of a ranking: the first, of this artifact."""
    names = {"artifact": "", "variant": variant, "engine": "torch", "device": device, "batch": batch}
    return {**names, "rank": 1, "p50_ms": p50_ms, "interval": None, "tied_with": [], **more}


def ranking(*rows: dict[str, Any], refused: str | None = None) -> dict[str, Any]:
    return {"refused": refused, "rows": list(rows), "left_out": []}


def save(folder: Path, document: Any, kind: str, time: str) -> Path:
    """Save a report as vconv does, but at a given time; a row without an artifact is of this one."""
    if not isinstance(document, Bisection):
        ours = {"artifact": str(folder)}
        rows = tuple(row if row.artifact else row.model_copy(update=ours) for row in document.rows)
        order = tuple(row if row.artifact else row.model_copy(update=ours) for row in document.ranking.rows)
        ranked = document.ranking.model_copy(update={"rows": order})
        update = {"variants" if kind == "validate" else "rows": rows, "ranking": ranked}
        document = document.model_copy(update=update)
    path = saving.save(folder, document.model_copy(update={"time": time}), kind, "log")
    assert path.name == f"{time}-{kind}.json"
    return path


def test_an_artifact_that_was_never_validated_has_none(tmp_path: Path) -> None:
    assert newest(tmp_path) == ([], "")


def test_the_newest_of_each_kind_is_told_real_and_simulated_apart(tmp_path: Path) -> None:
    one = report(variant("a", timing(1, 9.0)))
    imitated = report(variant("a", device="npu-sim", simulated=True), status=Status.INCOMPLETE)
    save(tmp_path, one, "validate", "20261120T000000")
    save(tmp_path, imitated, "validate", "20261121T000000")
    save(tmp_path, made_reports.bisection("cuda:0", Status.FAILED), "bisect", "20261122T000000")
    save(tmp_path, one.model_copy(update={"status": Status.FAILED}), "validate", "20261123T000000")
    found, trouble = newest(tmp_path)
    assert trouble == ""
    keys = ("kind", "time", "status", "simulated", "devices")
    assert [tuple(entry[key] for key in keys) for entry in found] == [
        ("validate", "20261123T000000", "failed", False, ("cpu",)),
        ("bisect", "20261122T000000", "failed", False, ("cuda:0",)),
        ("validate", "20261121T000000", "incomplete", True, ("npu-sim",)),
    ]


def test_two_reports_of_one_second_are_of_one_kind_and_the_later_counts(tmp_path: Path) -> None:
    save(tmp_path, report(variant("a")), "validate", "20261120T000000")
    again = report(variant("a"), status=Status.FAILED, time="20261120T000000")
    path = saving.save(tmp_path, again, "validate", "log")
    assert path.name == "20261120T000000-validate-2.json"
    ((entry,), _) = newest(tmp_path)
    assert (entry["kind"], entry["status"]) == ("validate", "failed")


def test_the_fastest_is_the_first_of_the_ranking_at_the_least_batch_of_each_device(tmp_path: Path) -> None:
    rows = [
        ranked("fast", 7.5),
        ranked("slow", 9.0, rank=2),
        ranked("slow", 1.0, batch=8),
        ranked("baseline", 0.1, rank=None),
        ranked("on another", 3.0, "npu:0", 4),
    ]
    save(
        tmp_path,
        report(variant("fast", timing(1, 7.5)), ranking=ranking(*rows)),
        "validate",
        "20261120T000000",
    )
    ((entry,), _) = newest(tmp_path)
    assert (entry["ranked"], entry["not_ranked"]) == (True, "")
    assert entry["fastest"] == (
        {"variant": "fast", "engine": "torch", "device": "cpu", "batch": 1, "p50_ms": 7.5},
        {"variant": "on another", "engine": "torch", "device": "npu:0", "batch": 4, "p50_ms": 3.0},
    )


def test_what_was_not_ranked_has_no_fastest_but_the_reason(tmp_path: Path) -> None:
    refused = ranking(refused="the machine was busy")
    save(tmp_path, report(variant("fast", timing(1, 7.5)), ranking=refused), "validate", "20261120T000000")
    ((entry,), _) = newest(tmp_path)
    assert (entry["fastest"], entry["not_ranked"]) == ((), "the machine was busy")


def test_a_comparison_has_rows_in_place_of_variants_and_a_winner(tmp_path: Path) -> None:
    winner = {"artifact": "a", "variant": "b", "engine": "torch", "tied_with": []}
    order = ranking(ranked("b", 7.0), ranked("a", 9.0, rank=2))
    rows = [{"artifact": "", "variant": name} for name in "abc"]
    save(tmp_path, comparison(*rows, winner=winner, ranking=order), "compare", "20261120T000000")
    ((entry,), _) = newest(tmp_path)
    assert (entry["winner"], entry["devices"]) == (entry["winner"] | winner, ("cpu",))
    assert [best["variant"] for best in entry["fastest"]] == ["b"]


ENTRY = {
    "file": "reports/20261120T000000-validate.json",
    "sha256": "",
    "status": "passed",
    "simulated": False,
}
DAMAGED: list[dict[str, Any]] = [
    {"file": "reports/a.json"},
    {"file": "reports/20261399T000000-validate.json"},
    {"file": "../20261120T000000-validate.json"},
    {"simulated": "false"},
    {"colour": "red"},
]
"""Entries that no index has."""


@pytest.mark.parametrize(
    "index",
    [
        "",
        "[]",
        "{",
        '{"reports": 1}',
        '{"reports": [1]}',
        '{"reports": [{}]}',
        '{"reports": [{"file": 1, "sha256": "", "status": "passed", "simulated": false}]}',
        '{"reports": [{"file": "reports/a.json", "sha256": "", "status": "well", "simulated": false}]}',
        '{"reports": [{"file": "../x/20261120T000000-y.json", "status": "passed", "simulated": false}]}',
        *(json.dumps({"reports": [{**ENTRY, **one}]}) for one in DAMAGED),
        json.dumps({"reports": [], "card": {"language": 3}}),
        json.dumps({"reports": [], "card": {"colour": "red"}}),
        "\xff",
    ],
)
def test_a_damaged_index_is_one_line(index: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_bytes(index.encode("latin-1"))
    found, trouble = newest(tmp_path)
    assert found == []
    assert str(tmp_path / "results.json") in trouble and "\n" not in trouble


@pytest.mark.parametrize(
    ("harm", "trouble"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_text("{}"), "was changed"),
    ],
    ids=["missing", "changed"],
)
def test_a_report_that_is_not_what_was_entered_says_so_and_no_more(
    harm: Any, trouble: str, tmp_path: Path
) -> None:
    harm(save(tmp_path, report(variant("a", timing(1, 9.0))), "validate", "20261120T000000"))
    ((entry,), _) = newest(tmp_path)
    assert (entry["trouble"], entry["status"], entry["fastest"]) == (trouble, "passed", ())


def test_a_damaged_entry_is_left_out_and_named_beside_the_others(tmp_path: Path) -> None:
    save(tmp_path, report(variant("a")), "validate", "20261120T000000")
    index = json.loads((tmp_path / "results.json").read_text())
    (tmp_path / "results.json").write_text(json.dumps({"reports": [*index["reports"], 1, {}]}))
    (entry,), trouble = newest(tmp_path)
    assert entry["file"] == "reports/20261120T000000-validate.json"
    assert trouble == (
        f"left out of {tmp_path / 'results.json'}, damaged: entry 2 (: Input should be an object) "
        "and 1 others"
    )


OTHER_SHAPES = {
    '{"schema_version": 2, "variants": [{"simulated": false}]}': "is not understood: time: Field required",
    '{"schema_version": 2, "schema_version": 2}': "the name 'schema_version' twice",
    '{"time": NaN}': "the number NaN",
    " " * (2**24 + 1): "more than 16,777,216 bytes",
}


@pytest.mark.parametrize("content", OTHER_SHAPES, ids=OTHER_SHAPES.values())
def test_a_report_of_another_shape_says_so(content: str, tmp_path: Path) -> None:
    path = save(tmp_path, report(variant("a")), "validate", "20261120T000000")
    path.write_text(content)
    index = json.loads((tmp_path / "results.json").read_text())
    index["reports"][-1]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / "results.json").write_text(json.dumps(index))
    ((entry,), _) = newest(tmp_path)
    assert entry["trouble"] == OTHER_SHAPES[content]


def test_the_fastest_of_a_comparison_with_others_is_of_this_one(tmp_path: Path) -> None:
    order = ranking(ranked("theirs", 1.0, artifact="other"), ranked("ours", 2.0, rank=2))
    row = {"artifact": "", "variant": "ours", "batch": 1, "p50_ms": 2.0}
    save(tmp_path, comparison(row, ranking=order), "compare", "20261120T000000")
    ((entry,), _) = newest(tmp_path)
    assert [best["variant"] for best in entry["fastest"]] == ["ours"]


def test_a_comparison_where_only_others_were_run_has_no_fastest(tmp_path: Path) -> None:
    order = ranking(ranked("theirs", 1.0, artifact="other"))
    save(
        tmp_path,
        comparison({"artifact": "other", "variant": "theirs"}, ranking=order),
        "compare",
        "20261120T000000",
    )
    ((entry,), _) = newest(tmp_path)
    assert entry["fastest"] == ()


def test_an_index_that_may_not_be_read_says_so_and_not_that_it_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, report(variant("a")), "validate", "20261120T000000")

    def refuse(path: Path) -> BinaryIO:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(documents, "open_regular", refuse)
    trouble = f"cannot read {tmp_path / 'results.json'}: Permission denied; repair its permissions"
    assert newest(tmp_path) == ([], trouble)
    with pytest.raises(ArtifactError, match="got Permission denied"):
        entries(tmp_path)
