"""What an artifact's reports say: the newest of each kind, and never an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vconv.errors import ArtifactError
from vconv.types import Status
from vconv.validators import report
from vconv.validators.history import newest, ranked


def timing(batch: int, p50_ms: float) -> dict[str, Any]:
    return {"batch": batch, "p50_ms": p50_ms}


def variant(name: str, *timings: dict[str, Any], device: str = "cpu", **more: Any) -> dict[str, Any]:
    row = {"variant": name, "engine": "torch", "device": device, "simulated": False}
    return {**row, "status": Status.PASSED, "latency": list(timings), **more}


def validation(*rows: dict[str, Any], status: Status = Status.PASSED, **more: Any) -> dict[str, Any]:
    devices = {row["device"]: "a model" for row in rows}
    return {"status": status, "variants": list(rows), "devices": devices, "ranking": {"rows": []}, **more}


def save(folder: Path, document: dict[str, Any], kind: str, time: str) -> Path:
    """Save a report as vconv does, but at a given time."""
    path = report.save(folder, document, kind, "log")
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
    path = report.save(tmp_path, validation(variant("a"), status=Status.FAILED), "validate", "log")
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


def ranking(*places: tuple[str, str, int, int | None], artifact: str = "a") -> dict[str, Any]:
    """Rank by name, device, batch and rank."""
    keys = ("variant", "device", "batch", "rank")
    more = {"engine": "torch", "p50_ms": 1.0, "artifact": artifact}
    return {"rows": [{**dict(zip(keys, place, strict=True)), **more} for place in places]}


def names(folder: Path, kind: str = "cpu") -> list[str]:
    return [row["variant"] for row in ranked(folder, kind)]


def test_an_artifact_that_was_never_ranked_has_no_order(tmp_path: Path) -> None:
    assert ranked(tmp_path, "cpu") == []
    save(tmp_path, validation(variant("a", timing(1, 9.0))), "validate", "20261120T000000")
    assert ranked(tmp_path, "cpu") == []


def test_the_order_is_that_of_the_least_batch_and_without_baselines(tmp_path: Path) -> None:
    order = ranking(
        ("at eight", "cpu", 8, 1),
        ("first", "cpu", 1, 1),
        ("second", "cpu", 1, 2),
        ("original", "cpu", 1, None),
    )
    save(tmp_path, validation(ranking=order), "validate", "20261120T000000")
    first = {"variant": "first", "engine": "torch", "device": "cpu", "batch": 1, "p50_ms": 1.0}
    assert ranked(tmp_path, "cpu") == [first, {**first, "variant": "second"}]


def test_each_kind_of_device_has_an_order_and_a_simulated_one_none(tmp_path: Path) -> None:
    order = ranking(("here", "cpu", 1, 1), ("there", "npu:1", 1, 1))
    save(tmp_path, validation(ranking=order), "validate", "20261120T000000")
    imitated = variant("imitated", device="npu-sim", simulated=True)
    order = ranking(("imitated", "npu-sim", 1, 1), ("imitated", "npu:0", 1, 1))
    save(tmp_path, validation(imitated, ranking=order), "validate", "20261121T000000")
    assert [names(tmp_path, kind) for kind in ("cpu", "npu", "cuda", "npu-sim")] == [
        ["here"],
        ["there"],
        [],
        [],
    ]


def test_the_newest_ranking_counts_and_a_report_without_one_changes_nothing(tmp_path: Path) -> None:
    save(tmp_path, validation(ranking=ranking(("new", "cpu", 1, 1))), "compare", "20261122T000000")
    save(tmp_path, validation(ranking=ranking(("old", "cpu", 1, 1))), "validate", "20261120T000000")
    save(tmp_path, {"status": "passed", "device": "cpu"}, "bisect", "20261123T000000")
    save(tmp_path, validation(variant("old")), "validate", "20261123T000000")
    assert names(tmp_path) == ["new"]


def test_a_variant_that_failed_later_is_left_out(tmp_path: Path) -> None:
    order = ranking(("a", "cpu", 1, 1), ("b", "cpu", 1, 2))
    save(tmp_path, validation(ranking=order), "validate", "20261120T000000")
    failed = [variant("a", status=Status.FAILED), variant("b", device="cuda:0", status=Status.FAILED)]
    save(tmp_path, validation(*failed, status=Status.FAILED), "validate", "20261121T000000")
    assert names(tmp_path) == ["b"]


def test_a_comparison_with_others_gives_the_order_of_this_one_alone(tmp_path: Path) -> None:
    rows = [{**variant("a", artifact=one), **timing(1, 9.0)} for one in ("other", str(tmp_path))]
    both = ranking(("theirs", "cpu", 1, 1), artifact="other")["rows"]
    document = {"status": "passed", "rows": rows, "winner": None, "ranking": {"rows": both}}
    save(tmp_path, document, "compare", "20261120T000000")
    assert names(tmp_path) == []
    both += ranking(("ours", "cpu", 1, 2), artifact=str(tmp_path))["rows"]
    save(tmp_path, document, "compare", "20261121T000000")
    assert names(tmp_path) == ["ours"]


def test_the_fastest_of_a_comparison_with_others_is_of_this_one(tmp_path: Path) -> None:
    rows = [
        {**variant("theirs", artifact="other"), **timing(1, 1.0)},
        {**variant("ours", artifact=str(tmp_path)), **timing(1, 2.0)},
    ]
    for row in rows:
        del row["latency"]
    save(tmp_path, {"status": "passed", "rows": rows}, "compare", "20261120T000000")
    ((entry,), _) = newest(tmp_path)
    assert [best["variant"] for best in entry["fastest"]] == ["ours"]


@pytest.mark.parametrize(
    "harm", [Path.unlink, lambda path: path.write_text("{}")], ids=["missing", "changed"]
)
def test_a_ranking_that_is_not_what_was_entered_counts_for_nothing(harm: Any, tmp_path: Path) -> None:
    harm(save(tmp_path, validation(ranking=ranking(("new", "cpu", 1, 1))), "validate", "20261121T000000"))
    save(tmp_path, validation(ranking=ranking(("old", "cpu", 1, 1))), "validate", "20261120T000000")
    assert names(tmp_path) == ["old"]


def test_a_report_of_another_shape_gives_no_order(tmp_path: Path) -> None:
    save(
        tmp_path,
        {"status": "passed", "variants": [], "ranking": {"rows": [1]}},
        "validate",
        "20261120T000000",
    )
    assert ranked(tmp_path, "cpu") == []


def test_an_index_that_is_none_gives_no_order_but_an_error(tmp_path: Path) -> None:
    row = '{"file": "elsewhere.json", "sha256": "", "status": "passed", "simulated": false}'
    for text in ("{", f'{{"reports": [{row}]}}'):
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(ArtifactError, match=r"results.json is damaged.*fix: delete it"):
            ranked(tmp_path, "cpu")
