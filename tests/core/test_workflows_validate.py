"""Validation, for every system."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vconv
from vconv import manifest
from vconv.catalog import System
from vconv.convert.sources import open_source

LIMIT = 1e-5


@pytest.fixture(scope="module")
def reports(exported: Callable[[str], Path]) -> Callable[[str], dict[str, Any]]:
    """Validate the artifact of a system once a session; return its report."""
    return functools.cache(
        lambda name: vconv.validate(exported(name), quick=True, engines=("onnxruntime", "openvino"))
    )


@pytest.fixture
def validated(reports: Callable[[str], dict[str, Any]], system: System) -> dict[str, Any]:
    return reports(system.name)


def test_a_validation_passes_and_says_that_its_reference_was_live(
    validated: dict[str, Any], system: System
) -> None:
    assert (validated["status"], validated["passed"], validated["artifact"]) == ("passed", True, system.name)
    assert validated["reference"]["source"] == "live"
    assert (validated["weights"], validated["synthetic"]) == ("synthetic:0", True)
    assert {check["status"] for check in validated["checks"]} == {"passed"}


def test_every_variant_is_judged_in_every_engine_and_the_original_only_measured(
    validated: dict[str, Any], system: System
) -> None:
    names = [(variant["variant"], variant["engine"]) for variant in validated["variants"]]
    assert len(names) == len(set(names)) == 6
    assert names[0] == ("original-torch-fp32", "torch")
    assert validated["variants"][0]["reason"]
    for variant in validated["variants"]:
        original = variant["variant"] == "original-torch-fp32"
        assert variant["status"] == ("skipped" if original else "passed"), variant
        for output in variant["outputs"].values():
            assert 1e-8 < output["floor"] < 5e-6
            assert original or output["vector_relative_error"] <= output["limit"] == LIMIT
            if system.config["model_type"] == "dinov3_vit":
                assert 1e-4 < output["to_stock_original"] < 1e-1


def test_every_variant_is_timed_and_a_static_graph_at_its_own_batch(validated: dict[str, Any]) -> None:
    for variant in validated["variants"]:
        batches = [timing["batch"] for timing in variant["latency"]]
        assert batches == ([2] if "npu" in variant["variant"] else [1])
        assert all(timing["runs"] >= 1 and timing["p99_ms"] is None for timing in variant["latency"])


def test_a_report_is_on_disk_as_it_was_returned_and_the_manifest_is_untouched(
    validated: dict[str, Any], artifact: Path
) -> None:
    path = Path(validated["report"])
    entries = {
        entry["file"]: entry for entry in json.loads((artifact / "results.json").read_text())["reports"]
    }
    assert entries[f"reports/{path.name}"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    stored = json.loads(path.read_text())
    returned = json.loads(json.dumps(validated))
    assert {key: stored[key] for key in returned if key != "report"} == {
        key: value for key, value in returned.items() if key != "report"
    }
    manifest.load(artifact)


def test_photographs_pass_too_where_the_original_is_live(artifact: Path, photographs: list[str]) -> None:
    report = vconv.validate(artifact, images=photographs, quick=True)
    assert report["passed"]
    assert next(check for check in report["checks"] if check["name"] == "golden")["status"] == "skipped"


def test_without_golden_and_without_the_original_a_validation_is_incomplete(
    small_name: str, small_system: System, tmp_path: Path
) -> None:
    from vconv.convert.sources import open_source

    (tmp_path / "weights").mkdir()
    folder = open_source(small_system, "synthetic:5", tmp_path / "weights").folder
    document = vconv.export(small_name, str(folder), tmp_path / "a", golden=False)
    assert document["variants"] == []
    assert not (tmp_path / "a" / "golden").exists()
    report = vconv.validate(tmp_path / "a", quick=True)
    assert (report["status"], report["passed"], report["variants"]) == ("incomplete", False, [])
    report = vconv.validate(tmp_path / "a", str(folder), quick=True)
    assert report["status"] == "passed"


def test_the_weights_of_another_seed_are_not_the_original(small_name: str, tmp_path: Path) -> None:
    vconv.export(small_name, "synthetic:5", tmp_path / "a")
    report = vconv.validate(tmp_path / "a", "synthetic:6", quick=True)
    assert report["status"] == "failed"
    failed = [check["name"] for check in report["checks"] if check["status"] == "failed"]
    assert failed == ["tensors", "golden"]


def test_a_changed_file_stops_a_validation(artifact: Path, tmp_path: Path) -> None:
    from vconv.errors import ArtifactError

    copy = tmp_path / "a"
    shutil.copytree(artifact, copy, copy_function=shutil.copy2)
    with (copy / "model.onnx").open("r+b") as file:
        file.seek(100)
        file.write(b"\xff")
    with pytest.raises(ArtifactError, match=r"model\.onnx was changed"):
        vconv.validate(copy, quick=True)


def test_an_artifact_cannot_be_its_own_original(small_name: str, tmp_path: Path) -> None:
    vconv.export(small_name, "synthetic:5", tmp_path / "a")
    for given in (tmp_path / "a", tmp_path / "a" / "model.safetensors"):
        with pytest.raises(vconv.VconvError, match="is an artifact .*the original's"):
            vconv.validate(tmp_path / "a", str(given), quick=True)
        with pytest.raises(vconv.VconvError, match="is an artifact"):
            vconv.export(small_name, str(given), tmp_path / "b")


def test_the_same_tensors_under_another_epsilon_are_not_the_original(
    small_name: str, small_system: System, tmp_path: Path
) -> None:
    (tmp_path / "weights").mkdir()
    folder = open_source(small_system, "synthetic:5", tmp_path / "weights").folder
    vconv.export(small_name, str(folder), tmp_path / "a", golden=False)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-3}))
    report = vconv.validate(tmp_path / "a", str(folder), quick=True)
    assert report["status"] == "failed"
    failed = {check["name"] for check in report["checks"] if check["status"] == "failed"}
    assert failed == {"source"}


def test_an_artifact_that_lacks_a_variant_fails(small_name: str, tmp_path: Path) -> None:
    vconv.export(small_name, "synthetic:5", tmp_path / "a")
    made = manifest.load(tmp_path / "a")
    made.model_copy(update={"variants": made.variants[:1]}).save(tmp_path / "a")
    report = vconv.validate(tmp_path / "a", quick=True)
    assert report["status"] == "failed"
    failed = [check["detail"] for check in report["checks"] if check["status"] == "failed"]
    assert failed == ["onnx-fp32, onnx-fp32-npu missing"]


def test_a_damaged_index_of_reports_stops_a_validation_before_it_runs(
    small_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vconv.export(small_name, "synthetic:5", tmp_path / "a")
    (tmp_path / "a" / "results.json").write_text("{")
    monkeypatch.setattr("vconv.validators.validation.run", lambda *args: pytest.fail("it ran"))
    with pytest.raises(vconv.VconvError, match=r"results\.json is damaged .*delete it"):
        vconv.validate(tmp_path / "a", quick=True)


def test_a_report_says_what_it_judged_on_and_what_preprocessing_costs(
    validated: dict[str, Any],
) -> None:
    assert validated["inputs"] == {"source": "recorded", "images": ["synthetic:0", "synthetic:1"]}
    assert validated["preprocessing_ms_per_image"] > 0
