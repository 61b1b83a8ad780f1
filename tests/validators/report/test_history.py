"""What an artifact's reports say: the newest of each kind, and never an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vconv.errors import ArtifactError
from vconv.types import Status
from vconv.validators.report import saving
from vconv.validators.report.history import entries, newest


def timing(batch: int, p50_ms: float) -> dict[str, Any]:
    return {"batch": batch, "p50_ms": p50_ms}


def variant(name: str, *timings: dict[str, Any], device: str = "cpu", **more: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"variant": name, "engine": "torch", "device": device, "simulated": False}
    return {**row, "status": Status.PASSED, "latency": list(timings), **more}


def validation(*rows: dict[str, Any], status: Status = Status.PASSED, **more: Any) -> dict[str, Any]:
    devices = {row["device"]: "a model" for row in rows}
    return {"status": status, "variants": list(rows), "devices": devices, "ranking": {"rows": []}, **more}


def save(folder: Path, document: dict[str, Any], kind: str, time: str) -> Path:
    """Save a report as vconv does, but at a given time."""
    for row in document.get("variants", document.get("rows", ())):
        row.setdefault("artifact", str(folder))
    path = saving.save(folder, document, kind, "log")
    index = json.loads((folder / "results.json").read_text())
    renamed = path.with_name(f"{time}-{kind}.json")
    path.rename(renamed)
    index["reports"][-1]["file"] = f"reports/{renamed.name}"
    (folder / "results.json").write_text(json.dumps(index))
    return renamed


def test_an_artifact_that_was_never_validated_has_none(tmp_path: Path) -> None:
    assert newest(tmp_path) == ([], "")


def test_the_newest_of_each_kind_is_told_real_and_simulated_apart(tmp_path: Path) -> None:
    one = validation(variant("a", timing(1, 9.0)))
    imitated = validation(variant("a", device="npu-sim", simulated=True), status=Status.INCOMPLETE)
    save(tmp_path, one, "validate", "20261120T000000")
    save(tmp_path, imitated, "validate", "20261121T000000")
    save(tmp_path, {"status": Status.FAILED, "device": "cuda:0"}, "bisect", "20261122T000000")
    save(tmp_path, {**one, "status": Status.FAILED}, "validate", "20261123T000000")
    found, trouble = newest(tmp_path)
    assert trouble == ""
    keys = ("kind", "time", "status", "simulated", "devices")
    assert [tuple(entry[key] for key in keys) for entry in found] == [
        ("validate", "20261123T000000", "failed", False, ("cpu",)),
        ("bisect", "20261122T000000", "failed", False, ("cuda:0",)),
        ("validate", "20261121T000000", "incomplete", True, ("npu-sim",)),
    ]


def test_two_reports_of_one_second_are_of_one_kind_and_the_later_counts(tmp_path: Path) -> None:
    save(tmp_path, validation(variant("a")), "validate", "20261120T000000")
    path = saving.save(tmp_path, validation(variant("a"), status=Status.FAILED), "validate", "log")
    index = json.loads((tmp_path / "results.json").read_text())
    index["reports"][-1]["file"] = "reports/20261120T000000-validate-2.json"
    path.rename(tmp_path / "reports" / "20261120T000000-validate-2.json")
    (tmp_path / "results.json").write_text(json.dumps(index))
    ((entry,), _) = newest(tmp_path)
    assert (entry["kind"], entry["status"]) == ("validate", "failed")


def test_the_fastest_is_of_what_passed_at_the_least_batch_of_each_device(tmp_path: Path) -> None:
    rows = [
        variant("slow", timing(1, 9.0), timing(8, 1.0)),
        variant("fast", timing(1, 7.5), timing(8, 2.0)),
        variant("wrong", timing(1, 0.1), status=Status.FAILED),
        variant("static", timing(8, 0.5)),
        variant("on another", timing(4, 3.0), device="npu:0"),
        variant("untimed", device="cuda:0"),
    ]
    save(tmp_path, validation(*rows, ranking={"rows": [{}]}), "validate", "20261120T000000")
    ((entry,), _) = newest(tmp_path)
    assert entry["devices"] == ("cpu", "npu:0", "cuda:0") and entry["ranked"]
    assert entry["fastest"] == (
        {"variant": "fast", "engine": "torch", "device": "cpu", "batch": 1, "p50_ms": 7.5},
        {"variant": "on another", "engine": "torch", "device": "npu:0", "batch": 4, "p50_ms": 3.0},
    )


def test_a_comparison_has_rows_in_place_of_variants_and_a_winner(tmp_path: Path) -> None:
    rows = [
        {**variant("a"), **timing(1, 9.0)},
        {**variant("b"), **timing(1, 7.0)},
        {**variant("c"), **timing(None, None)},  # type: ignore[arg-type]
    ]
    for row in rows:
        del row["latency"]
    winner = {"variant": "b", "engine": "torch"}
    save(tmp_path, {"status": "passed", "rows": rows, "winner": winner}, "compare", "20261120T000000")
    ((entry,), _) = newest(tmp_path)
    assert (entry["winner"], entry["devices"]) == (winner, ("cpu",))
    assert [best["variant"] for best in entry["fastest"]] == ["b"]


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
        (lambda path: path.unlink(), "No such file or directory"),
        (lambda path: path.write_text("{}"), "was changed"),
    ],
    ids=["missing", "changed"],
)
def test_a_report_that_is_not_what_was_entered_says_so_and_no_more(
    harm: Any, trouble: str, tmp_path: Path
) -> None:
    harm(save(tmp_path, validation(variant("a", timing(1, 9.0))), "validate", "20261120T000000"))
    ((entry,), _) = newest(tmp_path)
    assert (entry["trouble"], entry["status"], entry["fastest"]) == (trouble, "passed", ())


def test_a_report_of_another_shape_says_so(tmp_path: Path) -> None:
    save(tmp_path, {"status": "passed", "variants": [{"simulated": False}]}, "validate", "20261120T000000")
    ((entry,), _) = newest(tmp_path)
    assert entry["trouble"] == "is not understood"


def test_the_fastest_of_a_comparison_with_others_is_of_this_one(tmp_path: Path) -> None:
    rows = [
        {**variant("theirs", artifact="other"), **timing(1, 1.0)},
        {**variant("ours"), **timing(1, 2.0)},
    ]
    for row in rows:
        del row["latency"]
    save(tmp_path, {"status": "passed", "rows": rows}, "compare", "20261120T000000")
    ((entry,), _) = newest(tmp_path)
    assert [best["variant"] for best in entry["fastest"]] == ["ours"]


def test_a_comparison_where_only_others_were_run_has_no_fastest(tmp_path: Path) -> None:
    theirs = {**variant("theirs", artifact="other"), **timing(1, 1.0)}
    del theirs["latency"]
    save(tmp_path, {"status": "passed", "rows": [theirs]}, "compare", "20261120T000000")
    ((entry,), _) = newest(tmp_path)
    assert entry["fastest"] == ()


def test_an_index_that_may_not_be_read_says_so_and_not_that_it_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, validation(variant("a")), "validate", "20261120T000000")

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert newest(tmp_path) == ([], f"cannot read {tmp_path / 'results.json'}: mend its permissions")
    with pytest.raises(ArtifactError, match="got Permission denied"):
        entries(tmp_path)
