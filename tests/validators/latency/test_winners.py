"""The order of an artifact's variants, as its reports tell it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import made_reports
import pytest

from vconv.errors import ArtifactError
from vconv.runtime.devices.table import find_device
from vconv.types import Status
from vconv.validators.latency.winners import RankedVariant, ranked
from vconv.validators.report import saving
from vconv.validators.report.comparison import Comparison
from vconv.validators.report.document import Report

CPU = find_device("cpu")
GPU = replace(CPU, name="cuda:0", kind="cuda")
NPU = replace(CPU, name="npu:0", kind="npu", options={"conv.allow_hf32": True})
Place = tuple[str, int | None]
Save = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "vconv.json.sha256").write_text("abc  vconv.json")
    return tmp_path


@pytest.fixture
def save(folder: Path) -> Save:
    """Save a report of variants, each with its rank."""

    def save(
        *places: Place,
        kind: str = "validate",
        device: str = "cpu",
        status: Status = Status.PASSED,
        more: tuple[dict[str, Any], ...] = (),
        **document: Any,
    ) -> Path:
        ours = {"artifact": str(folder), "engine": "torch", "device": device, "batch": 1}
        found = [{**ours, "variant": name, "rank": rank, "status": status} for name, rank in places]
        found += [{**ours, "status": Status.PASSED, **one} for one in more]
        ranked = [row for row in found if row["status"] is Status.PASSED and "rank" in row]
        timed = {"p50_ms": 1.0, "interval": None, "tied_with": []}
        named = ("artifact", "variant", "engine", "device", "batch", "rank")
        rows = [{**timed, **{key: row[key] for key in named}} for row in ranked]
        document |= {"ranking": {"refused": None, "rows": rows, "left_out": []}}
        document = {"device_settings": {device: {}}, **document}
        kept = ("artifact", "variant", "engine", "device", "status", "simulated")
        judged = [{key: row[key] for key in kept if key in row} for row in found]
        made: Report | Comparison
        if kind == "compare":
            made = made_reports.comparison(*judged, status=status, **document)
        else:
            variants = [made_reports.variant(row.pop("variant"), **row) for row in judged]
            made = made_reports.report(*variants, status=status, **document)
        return saving.save(folder, made, kind, "log")

    return save


def test_what_was_never_ranked_has_no_order(folder: Path, save: Save) -> None:
    assert ranked(folder, CPU) == []
    save(more=({"variant": "a"},))
    assert ranked(folder, CPU) == []


def test_the_order_is_that_of_the_least_batch_and_without_baselines(folder: Path, save: Save) -> None:
    at_eight = {"variant": "at eight", "batch": 8, "rank": 1}
    save(("first", 1), ("second", 2), ("third", 2), ("original", None), more=(at_eight,))
    names = [("first", 1), ("second", 2), ("third", 2)]
    assert ranked(folder, CPU) == [RankedVariant(name, "torch", rank) for name, rank in names]


@pytest.mark.parametrize("kind", ["validate", "compare"])
def test_the_newest_ranking_counts_and_a_report_without_one_changes_nothing(
    kind: str, folder: Path, save: Save
) -> None:
    save(("old", 1))
    save(("new", 1), kind=kind)
    save(more=({"variant": "old"},))
    save(("bisected", 1), kind="bisect")
    assert ranked(folder, CPU) == [RankedVariant("new", "torch", 1)]


def test_each_kind_of_device_has_an_order_of_its_own(folder: Path, save: Save) -> None:
    save(("here", 1))
    save(("there", 1), device="cuda:1")
    assert ranked(folder, CPU) == [RankedVariant("here", "torch", 1)]
    assert ranked(folder, GPU) == [RankedVariant("there", "torch", 1)]
    assert ranked(folder, NPU) == []


def test_the_device_itself_counts_before_another_of_its_kind(folder: Path, save: Save) -> None:
    own = {"variant": "on this", "device": "cuda:1", "rank": 1}
    save(("on another", 1), more=(own,), device="cuda:0", device_settings={"cuda:0": {}, "cuda:1": {}})
    assert ranked(folder, replace(GPU, name="cuda:1")) == [RankedVariant("on this", "torch", 1)]
    assert ranked(folder, GPU) == [RankedVariant("on another", "torch", 1)]


def test_the_cpu_that_an_accelerator_was_held_against_was_not_asked_for(folder: Path, save: Save) -> None:
    save(("asked", 1))
    save(("there", 1), device="cuda:0", more=({"variant": "baseline", "device": "cpu", "rank": 1},))
    assert ranked(folder, CPU) == [RankedVariant("asked", "torch", 1)]


def test_a_device_that_was_set_otherwise_is_another(folder: Path, save: Save) -> None:
    save(("with", 1), device="npu:0", device_settings={"npu:0": {"conv.allow_hf32": True}})
    save(("without", 1), device="npu:0", device_settings={"npu:0": {"conv.allow_hf32": False}})
    unlike = {"npu:0": {"conv.allow_hf32": False}}
    save(("with", 1), device="npu:0", device_settings=unlike, status=Status.FAILED)
    assert ranked(folder, NPU) == [RankedVariant("with", "torch", 1)]
    assert ranked(folder, replace(NPU, options={"conv.allow_hf32": False})) == [
        RankedVariant("without", "torch", 1)
    ]


def test_an_imitation_ranks_nothing(folder: Path, save: Save) -> None:
    save(more=({"variant": "imitated", "rank": 1, "simulated": True},))
    assert ranked(folder, CPU) == []


def test_a_variant_that_failed_later_is_left_out_until_it_passes(folder: Path, save: Save) -> None:
    save(("a", 1), ("b", 2))
    save(("a", None), status=Status.FAILED)
    save(("b", None), device="cuda:0", status=Status.FAILED)
    assert ranked(folder, CPU) == [RankedVariant("b", "torch", 2)]
    save(more=({"variant": "a"},))
    assert ranked(folder, CPU) == [RankedVariant("a", "torch", 1), RankedVariant("b", "torch", 2)]


def test_where_all_have_failed_the_ranking_before_counts(folder: Path, save: Save) -> None:
    save(("a", 1), ("b", 2))
    save(("a", 1))
    save(("a", None), status=Status.FAILED)
    assert ranked(folder, CPU) == [RankedVariant("b", "torch", 2)]


@pytest.mark.parametrize("others", [True, False], ids=["both were run", "only the other was"])
def test_a_comparison_with_others_gives_the_order_of_this_one_alone(
    others: bool, folder: Path, save: Save
) -> None:
    save(("before", 1))
    theirs = {"variant": "theirs", "artifact": "other", "rank": 1}
    ours = {"variant": "ours", "rank": 2}
    save(more=(theirs, ours) if others else (theirs,), kind="compare")
    assert [one.variant for one in ranked(folder, CPU)] == (["ours"] if others else ["before"])


def test_another_export_in_the_same_place_was_never_ranked(folder: Path, save: Save) -> None:
    save(("a", 1))
    (folder / "vconv.json.sha256").write_text("def  vconv.json")
    assert ranked(folder, CPU) == []


def change(path: Path) -> None:
    path.write_text(path.read_text().replace('"new"', '"worse"'))


@pytest.mark.parametrize("harm", [Path.unlink, change], ids=["missing", "changed"])
def test_a_report_that_is_not_what_was_entered_counts_for_nothing(
    harm: Callable[[Path], None], folder: Path, save: Save
) -> None:
    save(("old", 1))
    harm(save(("new", 1)))
    assert ranked(folder, CPU) == [RankedVariant("old", "torch", 1)]


@pytest.mark.parametrize("more", [{"device_settings": None}, {"device_settings": {"cpu": None}}], ids=repr)
def test_a_report_of_another_shape_counts_for_nothing(more: dict[str, Any], folder: Path, save: Save) -> None:
    save(("old", 1))
    path = save(("new", 1))
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))
    index = json.loads((folder / "results.json").read_text())
    index["reports"][-1]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "results.json").write_text(json.dumps(index))
    assert ranked(folder, CPU) == [RankedVariant("old", "torch", 1)]


def test_an_index_that_is_none_is_an_error(folder: Path) -> None:
    (folder / "results.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"cannot read .*results.json .* got no JSON.*fix: delete it"):
        ranked(folder, CPU)


def test_a_damaged_entry_of_the_index_is_left_out(folder: Path) -> None:
    row = '{"file": "elsewhere.json", "sha256": "", "status": "passed", "simulated": false}'
    (folder / "results.json").write_text(f'{{"reports": [{row}]}}')
    assert ranked(folder, CPU) == []
