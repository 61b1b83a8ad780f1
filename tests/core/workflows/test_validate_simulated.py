"""Validation on the simulated NPU: what it predicts, by cause, and what it must never say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vconv
from vconv.artifact import manifest
from vconv.catalog.systems import System
from vconv.cli import render
from vconv.cli.terminal import WIDTH
from vconv.convert.sources.table import Request, open_source
from vconv.errors import InputError
from vconv.runtime.simulation.device import lack
from vconv.validators.report.document import ValidationResult

if lack():
    pytest.skip(lack(), allow_module_level=True)

ONE = pytest.mark.parametrize("system", ["dinov2-large"], indirect=True)
TORCH = ("original-torch-fp32", "patched-torch-fp32", "fused-torch-fp32")
GRAPHS = ("onnx-fp32", "onnx-fp32-npu")


@pytest.fixture(scope="module")
def predictions() -> dict[str, tuple[ValidationResult, str]]:
    """By system, the report of a full validation on the simulated NPU, and its log; made once."""
    return {}


@pytest.fixture
def predicted(
    predictions: dict[str, tuple[ValidationResult, str]], copied: Path, small_system: System
) -> tuple[ValidationResult, str]:
    if small_system.name not in predictions:
        report = vconv.validate(copied, device="npu-sim", full=True)
        predictions[small_system.name] = report, Path(report.log).read_text()
    return predictions[small_system.name]


def rows(report: ValidationResult) -> dict[str, Any]:
    assert report.report
    return {row.variant: row for row in report.variants}


def worst(outputs: dict[str, dict[str, float]]) -> float:
    return max(errors.vector_relative_error for errors in outputs.values())


@pytest.mark.every_system
def test_every_systems_variants_are_predicted_and_the_patch_takes_gelu_out_of_the_error(
    predicted: tuple[ValidationResult, str], copied: Path
) -> None:
    report, _ = predicted
    assert report.status == "passed"
    found = rows(report)
    assert set(found) == {*TORCH, *GRAPHS}
    blocks = report_blocks(copied)
    for name, row in found.items():
        prediction = row.prediction
        assert row.simulated is True and row.device == "npu-sim"
        assert prediction.arithmetic == {"gelu": "tanh", "convolution": "hf32", "matmul": "fp32"}
        expected_gelus = blocks if name == TORCH[0] else 0
        assert prediction.changed == {"gelu": expected_gelus, "convolution": 1, "matmul": 0}
        assert prediction.executed > 50
        assert worst(prediction.rest) < 1e-5 < worst(prediction.outputs)
        alone = {cause: worst(one.outputs) for cause, one in prediction.causes.items()}
        assert set(alone) == {"gelu", "convolution"} and alone["convolution"] > 1e-5
        assert (alone["gelu"] > 1e-4) is (name == TORCH[0])
    assert found[TORCH[1]].gelu == "npu_gelu" and found[TORCH[0]].gelu is None
    assert worst(found[TORCH[0]].prediction.outputs) > worst(found[TORCH[1]].prediction.outputs)


def report_blocks(folder: Path) -> int:
    config = json.loads((folder / "config.json").read_text())
    return int(config.get("num_hidden_layers") or config["model_args"]["depth"])


@ONE
def test_nothing_that_a_simulation_takes_is_reported(predicted: tuple[ValidationResult, str]) -> None:
    report, _ = predicted
    for row in report.variants:
        assert row.latency == () and row.skipped_batches == ()
        assert row.load_ms is None and row.first_ms is None
        assert row.peak_memory_is is None and row.peak_rss_bytes is None
    assert "the latency of a simulated device" in report.ranking.refused
    assert report.speed_up_baseline == ""
    assert report.devices["npu-sim"].startswith("simulated Ascend NPU, profile 910b")


@ONE
def test_the_word_simulated_follows_every_line_that_names_a_variant(
    predicted: tuple[ValidationResult, str], capsys: pytest.CaptureFixture[str]
) -> None:
    report, log = predicted
    render.validated(report)
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    table = [place for place, line in enumerate(lines) if " npu-sim" in line]
    # A name that is too long for its column goes on in the next line.
    assert len(table) >= 4 and all("simulated" in lines[place] + lines[place + 1] for place in table)
    assert "predicted, not measured" in shown and "variant (simulated)" in shown
    assert " ms" not in shown
    assert max(map(len, shown.splitlines())) <= WIDTH
    for row in report.variants:
        for errors in row.prediction.outputs.values():
            assert f" {100 * errors.relative_error:.4f} % " in shown
    named = [line for line in log.splitlines() if "npu-sim)" in line or "npu-sim," in line]
    assert all("simulated" in line for line in named if not line.lstrip()[0].isdigit())
    assert log.count("predicted by simulation") == 5


@ONE
def test_where_the_arithmetic_changes_nothing_there_is_no_prediction_and_no_pass(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = vconv.validate(copied, device="npu-sim", hf32=())
    found = rows(report)
    assert (report.status, report.passed) == ("incomplete", False)
    for name in (TORCH[1], *GRAPHS):
        assert found[name].status == "skipped"
        assert "changed no operator" in found[name].reason
        assert sum(found[name].prediction.changed.values()) == 0
        assert worst(found[name].prediction.outputs) < 1e-5
    assert found[TORCH[0]].prediction.changed["gelu"] > 0
    assert report.device_settings["npu-sim"]["convolution"] == "fp32"
    why = "incomplete, because no variant was judged: the simulated arithmetic changed no operator of it"
    last = Path(report.log).read_text().splitlines()[-2:]
    assert last[0].startswith(why) and last[1] == "incomplete, within strict limits"
    render.validated(report)
    shown = capsys.readouterr().out
    assert why in " ".join(shown.split()) and shown.splitlines()[-1] == "incomplete"


@ONE
@pytest.mark.parametrize(
    ("options", "pair", "causes"),
    [
        ({"profile": "310p"}, ("fp32", "fp16"), {"gelu", "convolution", "matmul"}),
        ({"hf32": ("matmul",)}, ("fp32", "hf32"), {"gelu", "matmul"}),
    ],
    ids=["310p", "matmul in hf32 alone"],
)
def test_other_settings_predict_more_and_are_held_to_their_own_limits(
    copied: Path, options: dict[str, Any], pair: tuple[str, str], causes: set[str]
) -> None:
    found = rows(vconv.validate(copied, device="npu-sim", **options))
    for row in found.values():
        assert (row.precision, row.arithmetic) == pair
        assert set(row.prediction.causes) == causes
        assert row.prediction.changed["matmul"] > 10
        assert worst(row.prediction.causes["matmul"].outputs) > 1e-5


@ONE
def test_without_the_original_the_recorded_outputs_are_what_is_predicted_against(
    copied: Path, tmp_path: Path, small_system: System
) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    source = open_source(Request(small_system, "synthetic:3"), weights)
    vconv.export(small_system.name, str(source.folder), tmp_path / "a")
    shutil.rmtree(weights)
    report = vconv.validate(tmp_path / "a", device="npu-sim")
    assert report.reference.source == "golden"
    assert set(rows(report)) == {*TORCH[1:], *GRAPHS}
    assert all(row.prediction.changed["convolution"] == 1 for row in report.variants)


@ONE
def test_a_loaded_variant_runs_there_too_and_a_bisection_does_not(copied: Path) -> None:
    made = manifest.load(copied)
    images = np.zeros((2, 3, *made.size), np.float32)
    with vconv.load(copied, "npu-sim", "patched-torch-fp32") as session:
        assert session(images)["cls"].shape[0] == 2
    with pytest.raises(InputError, match="bisect cannot look into a simulated device"):
        vconv.bisect(copied, "onnx-fp32", device="npu-sim")
