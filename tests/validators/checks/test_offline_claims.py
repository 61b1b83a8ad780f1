"""A manifest that lies about an offline model, with every hash made to fit: each lie is named."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vconv
from vconv.artifact.artifact import Artifact
from vconv.artifact.manifest import DIGEST_FILE
from vconv.catalog.systems import SYSTEMS, System
from vconv.hashes import sha256_of
from vconv.types import MANIFEST_FILE, Status
from vconv.validators.checks.claims import OF_OFFLINE_MODELS, Evidence, check_claims
from vconv.validators.checks.inspected_graph import open_graph

Lie = Callable[[dict[str, Any]], object]
MODEL, FILES = OF_OFFLINE_MODELS
OPTIONS: dict[str, dict[str, Any]] = {
    "fp16": {"format": "om", "soc": "Ascend910B4", "om_precision": "fp16", "gears": (1, 2)},
    "opset 15": {"format": "om", "soc": "Ascend910B4", "om_precision": "fp16", "npu_opset": 15},
    "float32": {"format": "om", "soc": "Ascend910B4", "om_precision": "origin"},
    "sizes": {
        "format": "om",
        "soc": "Ascend310P3",
        "size": "dynamic",
        "gears_size": "56,56;28,56",
        "npu_opset": 15,
        "om_precision": "fp16",
    },
    "air": {"format": "air", "soc": "Ascend310P3"},
}


@pytest.fixture
def system() -> System:
    """One system: what is tested here is the same for all."""
    return SYSTEMS["dinov2-small"]


@pytest.fixture
def made(
    small_system: System, once: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Path]:
    """The function that exports an offline model without ATC, and returns a copy of the artifact."""

    def export(kind: str) -> Path:
        with monkeypatch.context() as patched:
            patched.setenv("PATH", str(tmp_path / "empty"))
            folder = once(
                f"offline-claims-{kind}",
                lambda part: vconv.export(small_system, "synthetic:1", part / "made", **OPTIONS[kind]),
            )
        return shutil.copytree(folder / "made", tmp_path / "artifact")

    return export


def offline(content: dict[str, Any]) -> Any:
    return content["variants"][-1]["offline"]


def lie(folder: Path, change: Lie) -> None:
    """Change the manifest, and make its hashes fit the files as they are."""
    content = json.loads((folder / MANIFEST_FILE).read_text())
    change(content)
    for name, record in content["files"].items():
        record.update(sha256=sha256_of(folder / name), nbytes=(folder / name).stat().st_size)
    text = json.dumps(content)
    (folder / MANIFEST_FILE).write_text(text)
    (folder / DIGEST_FILE).write_text(hashlib.sha256(text.encode()).hexdigest())


def edit(folder: Path, name: str, old: str, new: str) -> None:
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))


def failed(folder: Path) -> dict[str, str]:
    """Return what is said of each claim that is not true."""
    artifact = Artifact.open(folder)
    made = artifact.manifest
    graphs = {
        one.path: open_graph(
            *(folder, one.path, one.weights, artifact.network, made.size, one.batch),
            any_size=one.contract.sides is not None,
        )
        for one in made.variants
        if one.path.endswith(".onnx")
    }
    checks = check_claims(Evidence(artifact, graphs))
    assert {check.fault for check in checks} <= {"", "manifest"}
    return {check.name: check.detail for check in checks if check.status is Status.FAILED}


@pytest.mark.parametrize("kind", OPTIONS)
def test_the_claims_of_every_kind_of_offline_model_are_true(made: Callable[[str], Path], kind: str) -> None:
    assert failed(made(kind)) == {}


def other_command(content: dict[str, Any], old: str, new: str) -> None:
    command = offline(content)["command"]
    assert any(old in part for part in command)
    offline(content)["command"] = [part.replace(old, new) for part in command]


LIES: dict[str, tuple[str, Lie, str, str]] = {
    "another processor": (
        "fp16",
        lambda m: offline(m).update(soc="Ascend910B3"),
        MODEL,
        "the processor of om-fp16 is Ascend910B3, its command says Ascend910B4",
    ),
    "another precision mode": (
        "fp16",
        lambda m: offline(m).update(precision_mode="mixed_float16"),
        MODEL,
        "('om-mixed-fp16', 'om/model.om', 'fp16')",
    ),
    "a precision mode that ATC does not have": (
        "fp16",
        lambda m: offline(m).update(precision_mode="fp8"),
        MODEL,
        "the precision mode of om-fp16 is fp8, which ATC does not have",
    ),
    "limits of another precision": (
        "float32",
        lambda m: m["variants"][-1].update(precision="fp16"),
        MODEL,
        "('om-fp32', 'om/model.om', 'fp16')",
    ),
    "other batches": (
        "fp16",
        lambda m: offline(m).update(gears=[1, 4]),
        MODEL,
        "the list of batches of om-fp16 is 1,4, its command says 1,2",
    ),
    "no batches": (
        "fp16",
        lambda m: offline(m).update(gears=[]),
        MODEL,
        "the list of batches of om-fp16 is none, its command says 1,2",
    ),
    "other sizes": (
        "sizes",
        lambda m: offline(m).update(gears_size=[[28, 28], [56, 56]]),
        MODEL,
        "the list of sizes of om-fp16 is 28,28;56,56, its command says 28,56;56,56",
    ),
    "a command for another processor": (
        "fp16",
        lambda m: other_command(m, "Ascend910B4", "Ascend910B3"),
        MODEL,
        "the processor of om-fp16 is Ascend910B4, its command says Ascend910B3",
    ),
    "a command for another batch": (
        "float32",
        lambda m: other_command(m, "pixel_values:1,", "pixel_values:8,"),
        MODEL,
        "the input of om-fp32 is pixel_values:1,3,56,56, its command says pixel_values:8,3,56,56",
    ),
    "a command with an option more": (
        "float32",
        lambda m: offline(m)["command"].append("--insert_op_conf=other.cfg"),
        MODEL,
        "the command of om-fp32 is not vconv's: --insert_op_conf=other.cfg",
    ),
    "a command of another program": (
        "float32",
        lambda m: offline(m)["command"].__setitem__(0, "rm"),
        MODEL,
        "the command of om-fp32 does not run atc",
    ),
    "another processor through torchair": (
        "air",
        lambda m: offline(m).update(soc="Ascend310P1"),
        MODEL,
        "the processor of air-cube-fp16 is Ascend310P1, its command says Ascend310P3",
    ),
}
"""The kind of model, the lie, the claim that is not true, and what is said of it."""


@pytest.mark.parametrize("name", LIES)
def test_a_lie_about_an_offline_model_is_named(made: Callable[[str], Path], name: str) -> None:
    kind, change, claim, said = LIES[name]
    folder = made(kind)
    lie(folder, change)
    assert said in failed(folder)[claim]


def test_a_validation_fails_by_such_a_lie_and_names_its_class(made: Callable[[str], Path]) -> None:
    folder = made("float32")
    lie(folder, lambda m: offline(m).update(soc="Ascend910B3"))
    report = vconv.validate(folder, quick=True, budget=1e-3)
    wrong = [(check.name, check.fault) for check in report.checks if check.status == "failed"]
    assert (report.status, wrong) == ("failed", [(MODEL, "manifest")])
    assert [row.fault for row in report.diagnosis] == ["manifest"]


EDITS: dict[str, tuple[str, str, str, str, str]] = {
    "a script for another processor": (
        *("fp16", "om/atc.sh", "Ascend910B4", "Ascend910B3"),
        "om/atc.sh does not run the command of om-fp16",
    ),
    "a script with an option more": (
        *("fp16", "om/atc.sh", "--log=error", "--log=error --insert_op_conf=other.cfg"),
        "om/atc.sh does not run the command of om-fp16",
    ),
    "a script that keeps an old report": (
        *("fp16", "om/atc.sh", "rm -f ", "true "),
        "om/atc.sh is not the script that vconv ",
    ),
    "a pass that is not turned off": (
        *("fp16", "om/fusion_switch.json", "GeluONNXFusionPass", "AnotherPass"),
        "om/fusion_switch.json is not what vconv ",
    ),
    "an operator that does not stay in float32": (
        *("fp16", "om/keep_dtype.cfg", "OpType::", "OpType::Not"),
        "om/keep_dtype.cfg is not what vconv ",
    ),
    "a node that does not stay in float32": (
        *("opset 15", "om/keep_dtype.cfg", "node_", "edon_"),
        "om/keep_dtype.cfg is not what vconv ",
    ),
    "a convolution in HF32": (
        *("float32", "om/op_precision.ini", "enable_float_32_execution", "enable_hi_float_32_execution"),
        "om/op_precision.ini is not what vconv ",
    ),
    "a script of torchair for another processor": (
        *("air", "air/atc.sh", "Ascend310P3", "Ascend310P1"),
        "air/atc.sh does not run the command of air-cube-fp16",
    ),
    "another script of torchair": (
        *("air", "air/make_air.py", "import ", "import os; import "),
        "air/make_air.py is not the script that vconv ",
    ),
}
"""The kind of model, the file, what is written in it and what in its place, and what is said of it."""


@pytest.mark.parametrize("name", EDITS)
def test_a_file_beside_an_offline_model_that_was_altered_is_named(
    made: Callable[[str], Path], name: str
) -> None:
    kind, file, old, new, said = EDITS[name]
    folder = made(kind)
    edit(folder, file, old, new)
    lie(folder, lambda m: None)
    assert failed(folder)[FILES].startswith(said)


def test_settings_that_the_record_does_not_ask_for_are_named(made: Callable[[str], Path]) -> None:
    folder = made("float32")
    (folder / "om" / "keep_dtype.cfg").write_text("OpType::Softmax\n")
    lie(folder, lambda m: m["files"].update({"om/keep_dtype.cfg": {}}))
    assert failed(folder)[FILES] == ("om/keep_dtype.cfg is there, which does not fit om-fp32 on Ascend910B4")


def test_files_of_another_version_may_be_worded_otherwise(made: Callable[[str], Path]) -> None:
    folder = made("fp16")
    edit(folder, "om/atc.sh", "# Compiles", "# Makes of")
    edit(folder, "om/fusion_switch.json", "GeluONNXFusionPass", "AnotherPass")
    lie(folder, lambda m: m.update(vconv="0.1.9"))
    assert failed(folder) == {}
    edit(folder, "om/atc.sh", "Ascend910B4", "Ascend910B3")
    lie(folder, lambda m: None)
    assert [*failed(folder)] == [FILES]
