from __future__ import annotations

import hashlib
import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any

import pytest
from made_reports import output, report, timing, variant

from vconv import documents
from vconv.artifact.results import RESULTS_FILE
from vconv.errors import ArtifactError
from vconv.types import Check, Status
from vconv.validators.report import saving
from vconv.validators.report.document import Report
from vconv.validators.report.upgrade import read_report

WHOLE = [
    ("", "", "incomplete"),
    ("passed", "", "passed"),
    ("passed", "passed", "passed"),
    ("passed", "skipped", "passed"),
    ("passed", "failed", "failed"),
    ("failed", "", "failed"),
    ("failed", "passed", "failed"),
    ("passed failed", "passed", "failed"),
    ("failed passed", "passed", "failed"),
    ("passed skipped", "passed", "passed"),
    ("skipped", "", "incomplete"),
    ("skipped", "passed", "incomplete"),
    ("skipped skipped", "passed skipped", "incomplete"),
    ("skipped failed", "passed", "failed"),
    ("skipped", "failed", "failed"),
    ("incomplete", "passed", "incomplete"),
    ("incomplete skipped", "", "incomplete"),
    ("incomplete failed", "", "failed"),
    ("", "passed", "incomplete"),
    ("", "skipped", "incomplete"),
    ("", "passed passed", "incomplete"),
    ("", "failed", "failed"),
    ("", "passed failed", "failed"),
]
"""Statuses of the variants, of the checks, and of the whole."""


@pytest.mark.parametrize(("variants", "checks", "whole"), WHOLE)
def test_the_whole_follows_from_its_parts(variants: str, checks: str, whole: str) -> None:
    rows = [variant(status=Status(status)) for status in variants.split()]
    found = [
        Check("check", Status(status), "detail", "weights" if status == "failed" else "")
        for status in checks.split()
    ]
    assert saving.whole(rows, found) is Status(whole)


def test_the_table_has_every_status_of_a_variant_alone_and_beside_a_passed_check() -> None:
    assert {status.value for status in Status} == {variants for variants, _, _ in WHOLE if variants.isalpha()}


class Standing(datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Standing:
        assert tz is UTC
        return cls(2026, 3, 1, 12, 30, 59, tzinfo=tz)


@pytest.fixture
def standing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "datetime", Standing)


def index(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / RESULTS_FILE).read_text())["reports"]
    return found


def document(status: str = "passed", run: int = 0, **values: Any) -> Report:
    """Make a report of now; what tells it from others is the seed of its weights."""
    return report(status=Status(status), weights=f"synthetic:{run}", time=saving.now(), **values)


def run_of(path: Path) -> int:
    return int(json.loads(path.read_text())["weights"].removeprefix("synthetic:"))


@pytest.mark.usefixtures("standing")
def test_reports_of_one_second_are_all_kept(tmp_path: Path) -> None:
    paths = [saving.save(tmp_path, document(run=run), "validate", "a log\n") for run in range(3)]
    assert len(set(paths)) == 3
    assert [run_of(path) for path in paths] == [0, 1, 2]
    assert [entry["file"] for entry in index(tmp_path)] == [f"reports/{path.name}" for path in paths]


@pytest.mark.usefixtures("standing")
def test_a_report_never_overwrites_one_that_is_there(tmp_path: Path) -> None:
    first, second = (saving.save(tmp_path, document(run=run), "validate", "a log\n") for run in range(2))
    first.unlink()
    third = saving.save(tmp_path, document(run=2), "validate", "a log\n")
    assert third != second
    assert run_of(second) == 1


@pytest.mark.usefixtures("standing")
def test_a_report_is_named_by_time_and_kind_and_says_when_and_where(tmp_path: Path) -> None:
    path = saving.save(tmp_path, document("failed"), "validate", "a log\n")
    assert path == tmp_path / "reports" / "20260301T123059-validate.json"
    content = json.loads(path.read_text())
    assert (content["schema_version"], content["time"]) == (2, "20260301T123059")
    assert (content["host"], content["status"]) == ("a-host", "failed")


def test_the_index_has_the_hash_of_every_report_in_order(tmp_path: Path) -> None:
    statuses = ["passed", "failed", "incomplete"]
    for status in statuses:
        saving.save(tmp_path, document(status), "validate", "a log\n")
    entries = index(tmp_path)
    assert [entry["status"] for entry in entries] == statuses
    for entry in entries:
        assert entry["sha256"] == hashlib.sha256((tmp_path / entry["file"]).read_bytes()).hexdigest()


def test_saving_leaves_nothing_half_written_behind(tmp_path: Path) -> None:
    path = saving.save(tmp_path, document(), "validate", "a log\n")
    files = {file for file in tmp_path.rglob("*") if file.is_file()}
    assert files == {path, path.with_suffix(".log"), tmp_path / RESULTS_FILE}


@pytest.mark.usefixtures("standing")
def test_every_report_has_its_own_log_beside_it(tmp_path: Path) -> None:
    logs = ["first\n", "second, größer\n", ""]
    paths = [saving.save(tmp_path, document(), "validate", log) for log in logs]
    assert [path.with_suffix(".log").read_text() for path in paths] == logs
    assert [entry["file"] for entry in index(tmp_path)] == [f"reports/{path.name}" for path in paths]


def test_a_log_shows_control_characters_of_others(tmp_path: Path) -> None:
    path = saving.save(tmp_path, document(), "validate", "reading \x1b]0;owned\x07\n")
    assert path.with_suffix(".log").read_text() == "reading \\x1b]0;owned\\x07\n"


def test_probing_leaves_no_trace(tmp_path: Path) -> None:
    saving.probe(tmp_path)
    assert list(tmp_path.iterdir()) == []
    saving.save(tmp_path, document(), "validate", "a log\n")
    before = sorted(tmp_path.rglob("*"))
    saving.probe(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("standing")
def test_validations_at_once_keep_every_report_log_and_entry(tmp_path: Path) -> None:
    def validate(run: int) -> Path:
        saving.probe(tmp_path)
        return saving.save(tmp_path, document(run=run), "validate", f"{run}\n")

    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(validate, range(64)))
    assert len(set(paths)) == 64
    assert [run_of(path) for path in paths] == list(range(64))
    assert [path.with_suffix(".log").read_text() for path in paths] == [f"{run}\n" for run in range(64)]
    assert sorted(entry["file"] for entry in index(tmp_path)) == sorted(f"reports/{p.name}" for p in paths)
    assert [path for path in tmp_path.rglob("*") if path.name.startswith(".")] == []


def test_a_folder_that_cannot_be_written_is_an_error_that_the_user_can_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *_: bytes) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(ArtifactError, match="cannot be written|cannot write"):
        saving.probe(tmp_path)
    with pytest.raises(ArtifactError, match="cannot be written|cannot write"):
        saving.save(tmp_path, document(), "validate", "a log\n")


def test_a_picture_is_drawn_once_the_report_is_on_disk(tmp_path: Path) -> None:
    seen: list[saving.ReportFile] = []

    def draw(saved: saving.ReportFile) -> bytes:
        assert (tmp_path / "reports" / saved.name).is_file()
        seen.append(saved)
        return b"drawn"

    path = saving.save(tmp_path, document(), "validate", "a log\n", {".html": draw, ".svg": b"as it is"})
    assert path.with_suffix(".html").read_bytes() == b"drawn"
    assert path.with_suffix(".svg").read_bytes() == b"as it is"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert seen == [saving.ReportFile(path.name, digest)]
    assert index(tmp_path)[0]["sha256"] == digest


def test_a_report_reads_back_from_its_file_as_it_was_with_none_for_what_is_infinite(tmp_path: Path) -> None:
    row = variant("onnx-fp32", timing(1, 2.0), outputs={"cls": output(vector_relative_error=math.inf)})
    written = document().model_copy(update={"variants": (row,)})
    path = saving.save(tmp_path, written, "validate", "a log\n")
    content = json.loads(path.read_text())
    assert content["variants"][0]["outputs"]["cls"]["vector_relative_error"] is None
    assert read_report(content, "validate") == written


def test_a_page_that_cannot_be_drawn_takes_nothing_of_the_report_with_it(tmp_path: Path) -> None:
    def draw(saved: saving.ReportFile) -> bytes:
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        saving.save(tmp_path, document(), "validate", "a log\n", {".html": draw})
    (entry,) = index(tmp_path)
    path = tmp_path / entry["file"]
    assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.with_suffix(".log").read_text() == "a log\n"
    assert not path.with_suffix(".html").exists()


@pytest.mark.parametrize(
    ("reason", "got"),
    [("x" * 2**24, "more than 16,777,216 bytes"), ("," * 300_001, "more than 300,000 values")],
)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_report_that_could_not_be_read_again_is_not_written_and_its_log_stays(
    tmp_path: Path, reason: str, got: str, elsewhere: bool
) -> None:
    other = tmp_path / "other"
    with pytest.raises(ArtifactError, match=f"cannot write .*-validate.json .* got {got} .* read its log"):
        row = variant("onnx-fp32", reason=reason)
        saving.save(tmp_path, report(row), "validate", "the log", elsewhere=other if elsewhere else None)
    (log,) = (other if elsewhere else tmp_path / "reports").iterdir()
    assert (log.suffix, log.read_text()) == (".log", "the log")
    assert not (tmp_path / RESULTS_FILE).exists()


def test_an_index_that_could_not_be_read_again_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saving.save(tmp_path, report(), "validate", "")
    before = (tmp_path / RESULTS_FILE).read_bytes()
    monkeypatch.setattr(documents, "INDEX", replace(documents.INDEX, nbytes=len(before)))
    with pytest.raises(ArtifactError, match=f"cannot write .*{RESULTS_FILE} .* got more than .* delete it"):
        saving.save(tmp_path, report(), "validate", "")
    assert (tmp_path / RESULTS_FILE).read_bytes() == before
