"""A toy of each kind is added where a new one goes, and nothing else: everything then knows it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import vconv
from vconv.artifact.manifest import Manifest
from vconv.cli import main
from vconv.errors import UnknownNameError
from vconv.precisions import PRECISIONS, Precision
from vconv.runtime.devices.table import KINDS, DeviceKind, find_device, find_devices
from vconv.runtime.engines.table import ENGINES, Engine, Runs
from vconv.runtime.engines.torch_kinds import PATCHED, TORCH_KINDS, TorchKind, TorchName
from vconv.runtime.engines.torch_model import TorchSession
from vconv.validators.accuracy.limits import STRICT, Limit

STANDINS = Path(__file__).parents[2] / "standins"
ONE = pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
"""What does not depend on the system is tried with one."""
ENGINE = Engine(
    name="toy",
    runs=Runs.GRAPHS,
    home="toy_engine:ToySession",
    package="toy_runtime",
    distributions=("toy_runtime",),
    purpose="an engine for a test",
)
DEVICE = DeviceKind("toy", "toy_device")
PRECISION = Precision("toy", "toy", "float32", "bfloat16")
LIMIT = Limit({"vector_relative_error": 4e-2}, "a guess")
KIND = TorchKind("bare", lambda applied: ())


def add(monkeypatch: pytest.MonkeyPatch, table: Mapping[Any, Any], key: Any, row: Any) -> None:
    monkeypatch.setitem(table, key, row)  # type: ignore[arg-type]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, stand_ins: Any) -> Engine:
    """A new engine: its file and its row. What it runs on is installed."""
    monkeypatch.syspath_prepend(STANDINS)
    stand_ins.add("toy_runtime", "1.2.3", "")
    add(monkeypatch, ENGINES, ENGINE.name, ENGINE)
    return ENGINE


def rows_of(document: Mapping[str, Any], key: str = "variants") -> dict[tuple[str, str], Mapping[str, Any]]:
    return {(row["variant"], row["engine"]): row for row in document[key]}


@ONE
def test_a_new_engine_is_validated_and_stands_in_the_reports_environment(
    copied: Path, engine: Engine
) -> None:
    command = ["validate", str(copied), "--engine", "toy", "--quick", "--budget", "0.001", "--json"]
    found = CliRunner().invoke(main, command)
    assert found.exit_code == 0, found.output
    document = json.loads(found.stdout)
    judged = [row for (_, name), row in rows_of(document).items() if name == "toy"]
    assert [row["variant"] for row in judged] == ["onnx-fp32", "onnx-fp32-npu"]
    assert [(row["status"], row["arithmetic"]) for row in judged] == [("passed", "fp32")] * 2
    assert all(row["latency"] for row in judged)
    assert document["environment"]["toy_runtime"] == "1.2.3"
    (log,) = (copied / "reports").glob("*-validate.log")
    assert "onnx-fp32 toy" in log.read_text() or "onnx-fp32 (toy" in log.read_text()


@ONE
def test_a_new_engine_is_compared_with_the_others(copied: Path, engine: Engine) -> None:
    document = vconv.compare([copied], engines=["onnxruntime", "toy"], quick=True, budget=1e-3).as_json()
    found = {row["engine"] for row in document["rows"] if row["variant"] == "onnx-fp32"}
    assert found == {"onnxruntime", "toy"}


@ONE
def test_a_new_engine_is_loaded_by_its_name(copied: Path, engine: Engine, size: tuple[int, int]) -> None:
    pixel_values = np.random.default_rng(3).standard_normal((2, 3, *size), np.float32)
    with vconv.load(copied) as usual, vconv.load(copied, engine="toy") as session:
        assert (session.variant, session.engine) == ("onnx-fp32", "toy")
        expected, actual = usual(pixel_values), session(pixel_values)
    for name, value in expected.items():
        assert np.linalg.norm(actual[name] - value) < 1e-5 * np.linalg.norm(value)


@ONE
def test_a_new_engine_is_bisected_stage_by_stage(copied: Path, engine: Engine) -> None:
    document = vconv.bisect(copied, engine="toy").as_json()
    assert (document["engine"], document["passed"], len(document["stages"])) == ("toy", True, 5)


def in_a_process(source: str, **environment: str) -> str:
    """Run the command line where the toys are in the tables from the start."""
    toys = f"""
import sys
sys.path.insert(0, {str(STANDINS)!r})
from vconv.precisions import PRECISIONS, Precision
from vconv.runtime.devices.table import KINDS, DeviceKind
from vconv.runtime.engines.table import ENGINES, Engine, Runs
from vconv.runtime.engines.torch_kinds import TORCH_KINDS, TorchKind
ENGINES["toy"] = Engine("toy", Runs.GRAPHS, "toy_engine:ToySession", "toy_runtime")
KINDS["toy"] = DeviceKind("toy", "toy_device")
PRECISIONS["toy"] = Precision("toy", "toy", "float32")
TORCH_KINDS["bare"] = TorchKind("bare", lambda applied: ())
from vconv.cli import main
main({source}, prog_name="vconv")
"""
    done = subprocess.run([sys.executable, "-c", toys], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return " ".join(done.stdout.split())


def test_help_names_what_was_added() -> None:
    shown = (in_a_process([name, "--help"].__repr__()) for name in ("validate", "bisect"))
    validate, bisect = (text.replace("- ", "-") for text in shown)  # lines are broken at hyphens
    assert (
        "for the graphs, onnxruntime, simulated-rounding, onnxruntime-tensorrt, openvino, toy, or" in validate
    )
    assert "for the torch variants, torch, torch-compiled; or all. Several are" in validate
    assert (
        "cpu, cuda[:N], npu[:N], npu-sim, toy[:N], or all, which is every device except npu-sim." in validate
    )
    assert "autocast-bf16, toy. auto is fp32" in validate
    assert "onnxruntime, simulated-rounding, onnxruntime-tensorrt, openvino, toy." in bisect
    assert "bare-torch-PRECISION" in bisect


@ONE
def test_a_new_precision_is_judged_by_its_own_limits_in_what_it_is_computed_in(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(monkeypatch, PRECISIONS, PRECISION.name, PRECISION)
    add(monkeypatch, STRICT, ("toy", "bf16"), LIMIT)
    document = vconv.validate(copied, precision=["toy"], quick=True, budget=1e-3).as_json()
    row = rows_of(document)["patched-torch-toy", "torch"]
    assert (row["status"], row["precision"], row["arithmetic"]) == ("passed", "toy", "bf16")
    assert {output["limit"] for output in row["outputs"].values()} == {4e-2}
    bounds = {(one["precision"], one["arithmetic"]): one["bounds"] for one in document["limits"]["rows"]}
    assert bounds["toy", "bf16"] == LIMIT.bounds
    with vconv.load(copied, variant="patched-torch-toy") as session:
        assert isinstance(session, TorchSession) and session.precision is PRECISION


@ONE
def test_a_precision_without_limits_is_not_judged_and_says_what_computes_it(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(monkeypatch, PRECISIONS, PRECISION.name, PRECISION)
    document = vconv.validate(copied, precision=["toy"], quick=True, budget=1e-3).as_json()
    row = rows_of(document)["patched-torch-toy", "torch"]
    assert (row["status"], row["reason"], row["outputs"]) == ("skipped", "engine computes bf16", {})


def test_a_new_kind_of_device_is_found_and_is_among_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(STANDINS)
    with pytest.raises(UnknownNameError, match="unknown device"):
        find_device("toy")
    add(monkeypatch, KINDS, DEVICE.name, DEVICE)
    assert [find_device(name).name for name in ("toy", "toy:1")] == ["toy:0", "toy:1"]
    assert [place.name for place in find_devices("all")][-2:] == ["toy:0", "toy:1"]


@ONE
def test_a_new_kind_of_torch_variant_is_loaded_judged_and_bisected_by_its_name(
    copied: Path, made: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnknownNameError, match="unknown variant"):
        vconv.load(copied, variant="bare-torch-fp32")
    add(monkeypatch, TORCH_KINDS, KIND.name, KIND)
    with vconv.load(copied, variant="bare-torch-fp32") as session:
        assert isinstance(session, TorchSession) and list(session.patches) == []
    rows = rows_of(vconv.validate(copied, quick=True, budget=1e-3).as_json())
    # Without its patches, the checkpoint has the library's RoPE periods, which are not the authors'.
    assert "rope-periods" in [patch.name for patch in made.patches if patch.applied]
    assert rows["bare-torch-fp32", "torch"]["status"] == "failed"
    assert rows["patched-torch-fp32", "torch"]["status"] == "passed"
    document = vconv.bisect(copied, "bare-torch-fp32").as_json()
    assert not document["passed"] and document["worst_stage"].startswith("block")


@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", [*TORCH_KINDS, "bare"])
def test_every_name_of_a_torch_variant_is_read_as_it_was_written(
    kind: str, precision: str, captured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(monkeypatch, TORCH_KINDS, KIND.name, KIND)
    name = TorchName(kind, precision, captured)
    assert str(name) == f"{kind}-torch-{precision}" + "-captured" * captured
    assert TorchName.read(str(name)) == name


@pytest.mark.parametrize(
    "name",
    ["onnx-fp32", "", "torch", "-torch-fp32", "patched-torch-", "bare-torch-fp32", "patched-torch--captured"],
)
def test_what_is_no_name_of_a_torch_variant_is_not_read_as_one(name: str) -> None:
    assert TorchName.read(name) is None


def test_a_precision_that_is_not_in_the_table_is_read_for_others_to_refuse() -> None:
    assert TorchName.read("patched-torch-fp4-captured") == TorchName(PATCHED, "fp4", True)
