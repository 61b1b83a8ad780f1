"""vconv tests itself: every fault must be caught and named, or the self-test must fail."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import vconv
from vconv.artifact import manifest
from vconv.artifact.manifest import Manifest
from vconv.convert.sources.table import Request, open_source
from vconv.errors import InputError
from vconv.types import WEIGHTS_FILE
from vconv.validators.faults.base import Fault
from vconv.validators.faults.table import FAULTS
from vconv.validators.faults.workshop import ArtifactCopy
from vconv.workflows import selftest

CLEAN = 1
LEAST_FAULTS = 14


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def only(monkeypatch: pytest.MonkeyPatch, *faults: Fault) -> None:
    monkeypatch.setattr("vconv.workflows.selftest.FAULTS", faults)


def fault_named(name: str) -> Fault:
    return next(fault for fault in FAULTS if fault.name == name)


def test_every_fault_is_caught_and_named_and_nothing_sound_alarms(
    small_artifact: Path,
) -> None:
    before = digests(small_artifact)
    document = vconv.selftest(small_artifact, clean_runs=CLEAN)
    wrong = [row for row in document["faults"] if not row["caught"] or row["class"] != row["expected"]]
    assert wrong == []
    assert document["alarms"] == []
    assert (document["clean_runs"], document["false_alarms"]) == (CLEAN, 0)
    assert (document["passed"], document["status"]) == (True, "passed")
    assert len(document["faults"]) >= LEAST_FAULTS
    tried = {row["fault"] for row in document["faults"]}
    assert tried | {row["fault"] for row in document["lacking"]} == {fault.name for fault in FAULTS}
    assert digests(small_artifact) == before


@pytest.mark.parametrize("system", ["dinov2-large"], indirect=True)
def test_a_fault_of_the_dynamic_graph_is_not_blamed_on_the_graph_that_takes_images(
    small_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["one operator scaled in a graph", "height and width swapped in a graph", "tanh GELU in a graph"]
    only(monkeypatch, *map(fault_named, names))
    vconv.export(small_name, "synthetic:1", tmp_path / "a", with_preprocessing=True)
    document = vconv.selftest(tmp_path / "a", clean_runs=1)
    found = {row["fault"]: row["class"] for row in document["faults"]}
    assert found == dict(zip(names, ["operator", "height and width", "activation"], strict=True))
    failed = [name for row in document["faults"] for name in row["failed_checks"]]
    assert [name for name in failed if name.startswith("model.uint8.onnx")] == []
    assert (document["passed"], document["false_alarms"]) == (True, 0)


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
def test_a_self_test_under_loosened_limits_fails(
    small_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numeric = {
        "height and width swapped in a graph",
        "blue channel first in a graph",
        "another pooling in a graph",
        "patches one token early in a graph",
        "tanh GELU by a patch",
        "a patch that leaves the periods untruncated",
        "one operator scaled in a graph",
    }
    only(monkeypatch, *map(fault_named, sorted(numeric)))
    loose = tmp_path / "loose.toml"
    loose.write_text("[fp32.fp32]\nvector_relative_error = 1e9\n")
    document = vconv.selftest(small_artifact, within=str(loose), clean_runs=0)
    assert (document["passed"], document["status"]) == (False, "failed")
    assert {row["fault"] for row in document["faults"] if not row["caught"]} == numeric
    assert document["limits"]["file"]["path"] == str(loose)


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
def test_a_fault_that_is_named_otherwise_fails_the_self_test(
    small_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, replace(fault_named("tanh GELU in a graph"), kind="bias"))
    document = vconv.selftest(small_artifact, clean_runs=0)
    (row,) = document["faults"]
    assert (row["caught"], row["class"], row["expected"]) == (True, "activation", "bias")
    assert not document["passed"]


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
def test_a_fault_that_changes_nothing_fails_the_self_test(
    small_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, Fault("nothing at all", "bias"))
    document = vconv.selftest(small_artifact, clean_runs=0)
    (row,) = document["faults"]
    assert (row["caught"], row["class"]) == (False, "")
    assert not document["passed"]


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
def test_a_false_alarm_fails_the_self_test(
    small_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tight = tmp_path / "tight.toml"
    tight.write_text("[fp32.fp32]\nvector_relative_error = 1e-9\n")
    only(monkeypatch, fault_named("tanh GELU in a graph"))
    document = vconv.selftest(small_artifact, within=str(tight), clean_runs=2)
    assert (document["clean_runs"], document["false_alarms"]) == (2, 2)
    assert not document["passed"]
    assert [alarm["run"] for alarm in document["alarms"]] == [0, 1]
    assert all("patched-torch-fp32" in alarm["failed_variants"] for alarm in document["alarms"])


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
def test_a_self_test_without_a_single_fault_does_not_pass(
    small_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch)
    assert not vconv.selftest(small_artifact, clean_runs=0)["passed"]


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
def test_without_a_path_every_system_of_the_catalog_is_tested_in_miniature(
    small_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The catalog holds the miniature of one system already: a miniature of that is itself.
    only(monkeypatch, fault_named("another interpolation"))
    monkeypatch.setattr("vconv.workflows.selftest.miniature", lambda system: system)
    monkeypatch.setattr("vconv.workflows.selftest.ANY_SIZE", ())
    monkeypatch.setattr("vconv.workflows.selftest.REDUCED", {small_name: ("fp16",)})
    document = vconv.selftest(clean_runs=1)
    assert document["passed"]
    names = [small_name, f"{small_name}, outputs of blocks", f"{small_name}, reduced precision"]
    assert document["artifacts"] == [f"{one}: synthetic:1 (synthetic: not trained weights)" for one in names]
    assert Counter(row["artifact"] for row in document["faults"]) == {small_name: 1}


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
def test_without_the_original_a_self_test_is_refused(
    small_name: str, small_system: Any, tmp_path: Path, shrink: Callable[..., Any]
) -> None:
    (tmp_path / "weights").mkdir()
    folder = open_source(Request(small_system, "synthetic:5"), tmp_path / "weights").folder
    vconv.export(small_name, folder, tmp_path / "a")
    with pytest.raises(InputError, match="cannot tell faults from what was exported .*give --weights"):
        vconv.selftest(tmp_path / "a")


@pytest.mark.parametrize("system", ["vit-base-patch16-224-in21k"], indirect=True)
def test_a_classifier_which_has_no_pooled_output_can_be_tested(
    small_system: Any, small_name: str, tmp_path: Path
) -> None:
    (tmp_path / "weights").mkdir()
    folder = open_source(Request(small_system, "synthetic:1"), tmp_path / "weights").folder
    weights = safetensors.numpy.load_file(folder / WEIGHTS_FILE)
    kept = {f"vit.{name}": value for name, value in weights.items() if not name.startswith("pooler")}
    kept["classifier.weight"] = np.random.default_rng(0).standard_normal((5, 96)).astype(np.float32)
    kept["classifier.bias"] = np.ones(5, np.float32)
    safetensors.numpy.save_file(kept, folder / WEIGHTS_FILE)
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["ViTForImageClassification"]
    config["id2label"] = {str(index): f"kind {index}" for index in range(5)}
    (folder / "config.json").write_text(json.dumps(config))
    vconv.export(small_name, folder, tmp_path / "a")
    assert "pooled" not in manifest.load(tmp_path / "a").outputs
    document = vconv.selftest(tmp_path / "a", str(folder), clean_runs=1)
    assert [row for row in document["faults"] if row["class"] != row["expected"]] == []
    assert document["passed"]
    reasons = {row["fault"]: row["reason"] for row in document["lacking"]}
    assert reasons["another pooling in a graph"] == "it has no output pooled"


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
def test_faults_that_an_artifact_has_no_place_for_are_left_out_and_said(
    small_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = ("untruncated periods in a graph", "a value bias dropped from a graph")
    only(monkeypatch, *map(fault_named, absent), FAULTS[0])
    vconv.export(small_name, "synthetic:5", tmp_path / "a", periods="library")
    document = vconv.selftest(tmp_path / "a", clean_runs=0)
    assert document["passed"]
    reasons = {row["fault"]: row["reason"] for row in document["lacking"]}
    assert reasons["untruncated periods in a graph"] == "no patch truncates its periods"
    assert reasons["a value bias dropped from a graph"] == "it has no value bias"


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
def test_a_refusal_in_the_middle_is_a_row_and_not_the_end(
    small_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(shop: ArtifactCopy) -> None:
        shop.write("config.json", b"{")

    only(monkeypatch, Fault("a configuration that is no JSON", "architecture", spoil), FAULTS[0])
    document = vconv.selftest(small_artifact, clean_runs=0)
    first, second = document["faults"]
    assert (first["caught"], first["class"]) == (True, "")
    assert "cannot read" in first["because"]
    assert (second["caught"], second["class"]) == (True, FAULTS[0].kind)
    assert not document["passed"]


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
def test_limits_by_which_no_departure_can_be_told_are_refused(small_artifact: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("[fp32.fp32]\ncosine = 0.99\n")
    with pytest.raises(InputError, match="a self-test needs a bound on vector_relative_error"):
        vconv.selftest(small_artifact, within=str(file))


def test_every_fault_has_a_name_of_its_own() -> None:
    names = [fault.name for fault in FAULTS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("runs", [-1])
def test_a_number_of_clean_runs_below_zero_is_refused(
    runs: int, made: Manifest, small_artifact: Path
) -> None:
    with pytest.raises(InputError, match="--clean-runs is out of range"):
        selftest.selftest(small_artifact, clean_runs=runs)


@pytest.mark.parametrize("system", ["vit-base-patch16-224-in21k"], indirect=True)
def test_faults_and_clean_runs_are_counted_together(
    small_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vconv.progress.EVERY_SECONDS", 0)
    monkeypatch.setattr(selftest, "FAULTS", FAULTS[:2])
    said: list[str] = []
    selftest.selftest(small_artifact, clean_runs=1, say=said.append)
    ours = [line.split(", ")[0] for line in said if small_artifact.name in line or "clean runs" in line]
    assert ours == [
        f"{small_artifact.name}: clean run 1 of 1: passed",
        "faults and clean runs: 1 of 3",
        f"{small_artifact.name}: {FAULTS[0].name}: caught",
        "faults and clean runs: 2 of 3",
        f"{small_artifact.name}: {FAULTS[1].name}: caught",
    ]
