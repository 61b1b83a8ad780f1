from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from click.testing import CliRunner

from vconv.cli import main
from vconv.runtime.devices.probe import UNKNOWN, ProbeReading
from vconv.runtime.doctor.diagnosis import Diagnosis, Finding, State
from vconv.runtime.simulation.device import lack
from vconv.workflows import doctor

StandIns = Any


@pytest.fixture(autouse=True)
def _nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Diagnosis((Finding("torch", State.OK, "2.13.0"),))
    monkeypatch.setattr("vconv.runtime.doctor.diagnosis.examine", lambda: found)


def probed(document: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """The state and the sentence of each finding on a device."""
    return {row["name"]: (row["state"], row["found"]) for row in document["findings"][1:]}


def test_without_a_probe_nothing_is_run() -> None:
    document = doctor.doctor()
    assert (document["probe"], document["passed"]) == (None, True)
    assert [row["name"] for row in document["findings"]] == ["torch"]


@pytest.mark.skipif(bool(lack()), reason=lack() or "it simulates")
def test_the_simulated_npu_is_read_in_a_process_of_its_own_and_called_simulated() -> None:
    document = doctor.doctor(True, device="npu-sim", profile="310p")
    assert document["passed"] is True, "what a device is known for is a note"
    probe = document["probe"]
    assert (probe["device"], probe["simulated"]) == ("npu-sim", True)
    assert {name: one["active"] for name, one in probe["readings"].items()} == {
        "gelu": "tanh",
        "convolution": "fp16",
        "matmul": "fp16",
    }
    found = probed(document)
    assert found["gelu on npu-sim"][0] == "note" and "F.gelu drops its mode" in found["gelu on npu-sim"][1]
    said = "fp16 (simulated): all that this chip's products take, whatever is set"
    assert found["matmul on npu-sim"] == ("note", said)
    assert all("(simulated)" in sentence for _, sentence in found.values())
    json.dumps(document)


def test_the_cpu_is_read_here() -> None:
    assert probed(doctor.doctor(True, device="cpu")) == {
        "gelu on cpu": ("ok", "erf"),
        "convolution on cpu": ("ok", "fp32"),
        "matmul on cpu": ("ok", "fp32"),
    }


def test_a_device_that_computes_in_no_known_way_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = {"gelu": ProbeReading(UNKNOWN, "", {"erf": 0.2, "tanh": 0.1})}
    monkeypatch.setattr("vconv.workflows.device_probe.probe", lambda place, seed: odd)
    result = CliRunner().invoke(main, ["doctor", "--probe", "--device", "cpu"])
    assert result.exit_code == 1
    assert "of no known form: nearest to tanh, 1.0e-01 away" in result.stdout
    assert result.stdout.splitlines()[-1] == "problems: gelu on cpu"


def test_a_device_that_is_not_there_is_a_finding_among_the_others() -> None:
    document = doctor.doctor(True, device="cuda:99")
    assert document["passed"] is False and document["probe"] is None
    (row,) = document["findings"][1:]
    assert (row["name"], row["state"]) == ("probe of cuda:99", "problem")
    assert "there is no cuda" in row["found"] and row["fix"]


@pytest.mark.parametrize("library", ["torch", pytest.param("onnx", marks=pytest.mark.full), "onnxruntime"])
def test_what_is_broken_is_told_and_nothing_heavy_is_imported_to_tell_it(
    library: str, stand_ins: StandIns
) -> None:
    stand_ins.add(library, "9.9.9", "raise ImportError('half of it is missing')")
    command = [sys.executable, "-m", "vconv", "doctor", "--json", "--probe", "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)["findings"]}
    assert rows[library]["state"] == "problem" and "half of it is missing" in rows[library]["found"]
    assert rows["probe"]["found"] == f"not run without {library}"
