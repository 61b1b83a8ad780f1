"""Offline models the whole way: exported, made later, checked, loaded and judged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import vconv
from vconv.artifact import manifest
from vconv.artifact.artifact import Artifact
from vconv.artifact.records import OfflineRecord
from vconv.catalog.systems import SYSTEMS, System
from vconv.cli import main
from vconv.convert.ascend import offline_model
from vconv.convert.ascend.routes import ONNX_ROUTE
from vconv.errors import ArtifactError, InputError, UnavailableError, UnknownNameError
from vconv.runtime.devices.base import Device
from vconv.runtime.devices.npu_gelu import SPELLED_OUT, ExactGelu
from vconv.validators.checks.compiled import check_compiled
from vconv.validators.report.document import CheckRow, Report
from vconv.validators.report.rows import VariantRow
from vconv.workflows import validate

SOC = "Ascend910B4"
GEARS = (1, 2)
OTHER_SIZE = (32, 96)
LATER = ["om/atc.sh", "om/fusion_switch.json", "om/keep_dtype.cfg", "om/model.onnx"]


@pytest.fixture
def system() -> System:
    """One system: what is tested here is the same for all."""
    return SYSTEMS["dinov3-vits16"]


@pytest.fixture
def without_atc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


@pytest.fixture
def one_npu(npu: Device, monkeypatch: pytest.MonkeyPatch) -> Device:
    """A machine with an NPU that pyACL alone can use: nothing of torch's or ONNX Runtime's runs there."""
    monkeypatch.setattr("vconv.runtime.devices.npu.count", lambda: 1)
    monkeypatch.setattr("vconv.runtime.devices.npu.make", lambda index, settings: npu)
    monkeypatch.setattr("vconv.runtime.devices.npu_gelu.find", lambda device: ExactGelu(SPELLED_OUT, None))
    return npu


@pytest.fixture
def exported(small_name: str, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Callable[..., Any]:
    """The function that exports an offline model too, once for each way of asking, and returns a copy."""

    def export(kind: str, **options: Any) -> tuple[Path, dict[str, Any]]:
        root = tmp_path_factory.getbasetemp() / "offline" / kind
        if not root.exists():
            document = vconv.export(
                small_name, "synthetic:1", root / "artifact", format="om", soc=SOC, **options
            )
            (root / "document.json").write_text(json.dumps(document))
        copy = shutil.copytree(root / "artifact", tmp_path / "artifact")
        return copy, json.loads((root / "document.json").read_text())

    return export


@pytest.fixture
def pending(exported: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, Any]]:
    """An artifact that was exported without ATC, and the export's document."""
    with monkeypatch.context() as patched:
        patched.setenv("PATH", os.devnull)
        found: tuple[Path, dict[str, Any]] = exported("pending", gears=GEARS, om_precision="fp16")
        return found


@pytest.fixture
def compiled(exported: Callable[..., Any], atc: Path) -> tuple[Path, dict[str, Any]]:
    """An artifact that was exported with ATC, and the export's document."""
    found: tuple[Path, dict[str, Any]] = exported("compiled", batch=2)
    return found


def row_of(report: Report, variant: str) -> VariantRow:
    (row,) = (row for row in report.variants if row.variant == variant)
    return row


def check_of(report: Report, name: str) -> CheckRow:
    (check,) = (check for check in report.checks if check.name == name)
    return check


def test_without_atc_the_artifact_is_complete_and_says_what_is_to_be_made(
    pending: tuple[Path, dict[str, Any]],
) -> None:
    folder, document = pending
    om = document["om"]
    assert (om["variant"], om["file"], om["compiled"]) == ("om-fp16", "om/model.om", False)
    assert (om["soc"], om["precision_mode"], om["gears"]) == (SOC, "fp16", [*GEARS])
    assert om["command"][0] == "atc" and "--dynamic_batch_size=1,2" in om["command"]
    assert [name for name in document["files"] if name.startswith("om/")] == LATER
    assert {row["status"] for row in document["variants"]} == {"passed"}
    assert "om-fp16" not in {row["variant"] for row in document["variants"]}
    made = manifest.load(folder)
    (record,) = made.made_later
    assert record.offline == OfflineRecord(
        soc=SOC, precision_mode="fp16", gears=GEARS, command=tuple(om["command"])
    )
    assert (record.engine, record.precision, record.batch) == ("acl", "fp16", None)
    assert record.graph is not None and record.graph.opset == 17


def test_on_a_cpu_a_validation_passes_and_says_why_the_offline_model_was_not_run(
    pending: tuple[Path, dict[str, Any]],
) -> None:
    report = validate.validate(pending[0], quick=True)
    assert report.status == "passed"
    row = row_of(report, "om-fp16")
    assert (row.engine, row.status) == ("acl", "skipped")
    assert row.reason == "acl cannot run here: offline models run on an NPU alone"
    check = check_of(report, "om/model.om")
    assert check.status == "skipped" and "not made yet" in check.detail


@pytest.mark.usefixtures("acl", "one_npu")
def test_on_an_npu_a_model_that_is_not_made_is_skipped(pending: tuple[Path, dict[str, Any]]) -> None:
    row = row_of(validate.validate(pending[0], quick=True, device="npu"), "om-fp16")
    assert (row.status, row.reason) == ("skipped", "model.om is not made yet: no such file")


@pytest.mark.usefixtures("acl", "one_npu", "atc")
def test_a_model_that_the_script_made_is_judged_and_said_not_to_be_hashed(
    pending: tuple[Path, dict[str, Any]],
) -> None:
    folder, _ = pending
    subprocess.run([folder / "om" / "atc.sh"], check=True, stdout=subprocess.DEVNULL)
    report = validate.validate(folder, quick=True, device="npu")
    row = row_of(report, "om-fp16")
    assert (row.status, row.device, row.arithmetic) == ("passed", "npu:0", "fp16")
    assert row.batches == (1, 2)
    assert [timing.batch for timing in row.latency] == [1]
    assert {output.status for output in row.outputs.values()} == {"passed"}
    assert row.outputs.keys() == manifest.load(folder).outputs.keys()
    check = check_of(report, "om/model.om")
    assert check.status == "skipped" and "not hashed" in check.detail
    assert check_of(report, "files").status == "passed"


@pytest.mark.usefixtures("acl", "one_npu")
def test_a_compiled_model_is_hashed_and_judged_at_its_batch_in_float32(
    compiled: tuple[Path, dict[str, Any]],
) -> None:
    folder, document = compiled
    assert document["om"]["compiled"] and document["om"]["variant"] == "om-fp32"
    held = [name for name in document["files"] if name.startswith("om/")]
    assert held == [
        "om/fusion_result.json",
        "om/fusion_switch.json",
        "om/model.om",
        "om/op_precision.ini",
    ]
    report = validate.validate(folder, quick=True, device="npu")
    row = row_of(report, "om-fp32")
    assert (row.status, row.batches, row.arithmetic) == ("passed", (2,), "fp32")
    assert "om/model.om" not in {check.name for check in report.checks}


def test_what_atc_fused_is_read_and_said(compiled: tuple[Path, dict[str, Any]]) -> None:
    check = check_of(validate.validate(compiled[0], quick=True), "om/model.om: fusions")
    assert check.status == "passed" and check.detail.endswith("it ran MatMulBiasAddFusionPass 3 times")


@pytest.mark.parametrize(
    ("fuses", "status", "said", "fault"),
    [
        ("fired", "failed", "GeluONNXFusionPass put Gelu in 2 places: the exact GELU becomes", "activation"),
        ("matched", "passed", "it ran MatMulBiasAddFusionPass 3 times", None),
        ("silent", "skipped", "there is no fusion_result.json beside it", None),
    ],
)
def test_a_model_in_which_a_gelu_was_fused_fails(
    pending: tuple[Path, dict[str, Any]],
    atc: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    fuses: str,
    status: str,
    said: str,
    fault: str | None,
) -> None:
    monkeypatch.setenv("ATC_FUSES", fuses)
    monkeypatch.setenv("ASCEND_WORK_PATH", str(tmp_path / "elsewhere"))
    subprocess.run([pending[0] / "om" / "atc.sh"], check=True, stdout=subprocess.DEVNULL)
    report = validate.validate(pending[0], quick=True)
    check = check_of(report, "om/model.om: fusions")
    assert (check.status, check.fault or None) == (status, fault)
    assert said in check.detail
    way_out = "; report this version of CANN, and ship the ONNX graph in place of the offline model"
    assert check.detail.endswith(way_out) == (fuses == "fired") == (report.status == "failed")
    assert check_of(report, "files").status == "passed"


def test_an_export_whose_gelu_atc_fused_is_refused_in_one_line(
    small_name: str, atc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATC_FUSES", "fired")
    home = tmp_path / "home"
    home.mkdir()
    arguments = ["--weights", "synthetic:1", "--out", str(home / "out"), "--format", "om", "--soc", SOC]
    result = CliRunner().invoke(main, ["export", small_name, *arguments])
    last = result.stderr.splitlines()[-1]
    assert result.exit_code == 1
    assert (
        "by others that compute something else | got GeluONNXFusionPass put Gelu in 2 places: the exact GELU"
        in last
    )
    assert [*home.iterdir()] == []


UNREADABLE: dict[str, tuple[str | bytes | None, str]] = {
    "nothing": ("", "it is empty"),
    "a brace": ("{", "it is not JSON: Expecting property name enclosed in double quotes, line 1, column 2"),
    "another encoding": (b"\xff{}", "it is not text in UTF-8"),
    "a number": (
        "[1]",
        "it has none of the forms that are known of atc's report: int in the place of a graph",
    ),
    "no counts": (
        '{"a": {"graph_fusion": {"GeluONNXFusionPass": {}}}}',
        "it has none of the forms that are known of atc's report: KeyError: 'effect_times'",
    ),
    "a word": (
        '{"a": {"graph_fusion": {"GeluONNXFusionPass": {"effect_times": "two"}}}}',
        "effect_times of GeluONNXFusionPass is 'two', not a whole number",
    ),
    "an infinite number": (
        '{"a": {"ub_fusion": {"APass": {"effect_times": 1e999}}}}',
        "effect_times of APass is inf, not a whole number",
    ),
    "without end": ("[" * 99_999, "it has none of the forms that are known of atc's report: RecursionError"),
    "a folder": (None, "a folder, not a regular file"),
}
"""What is in the place of the report, a folder for None, and what is said of it."""


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_report_of_atc_that_cannot_be_read_fails(pending: tuple[Path, dict[str, Any]], kind: str) -> None:
    content, said = UNREADABLE[kind]
    report = pending[0] / "om" / "fusion_result.json"
    (report.parent / "model.om").write_bytes(b"not judged on a CPU")
    if content is None:
        report.mkdir()
    else:
        report.write_bytes(content if isinstance(content, bytes) else content.encode())
    (check,) = check_compiled(Artifact.open(pending[0]))
    assert (check.name, check.status, check.fault) == ("om/model.om: fusions", "failed", "compiler's report")
    assert check.detail.startswith(
        f"om/fusion_result.json cannot be read, so which passes atc ran is not known: {said}"
    )
    assert check.detail.endswith("; to get another one, run om/atc.sh again")


def test_a_report_of_atc_that_cannot_be_read_is_the_diagnosis(pending: tuple[Path, dict[str, Any]]) -> None:
    om = pending[0] / "om"
    (om / "model.om").write_bytes(b"not judged on a CPU")
    (om / "fusion_result.json").write_text("{")
    (row,) = validate.validate(pending[0], quick=True).diagnosis
    assert (row.fault, row.where) == ("compiler's report", "om/model.om: fusions")
    assert row.meaning == "what CANN's compiler reported of an offline model cannot be read"


@pytest.mark.parametrize("text", ["{}", "[]", '{"a": {"graph_fusion": {}, "ub_fusion": {}}}'], ids=range(3))
def test_a_report_of_atc_that_names_no_pass_proves_nothing(
    pending: tuple[Path, dict[str, Any]], text: str
) -> None:
    om = pending[0] / "om"
    (om / "model.om").write_bytes(b"not judged on a CPU")
    (om / "fusion_result.json").write_text(text)
    check = check_of(validate.validate(pending[0], quick=True), "om/model.om: fusions")
    assert (check.status, check.detail[:34]) == ("skipped", "fusion_result.json names no pass, ")


def test_a_model_never_has_the_report_of_an_earlier_one(
    pending: tuple[Path, dict[str, Any]], atc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    om = pending[0] / "om"
    subprocess.run([om / "atc.sh"], check=True, stdout=subprocess.DEVNULL)
    assert (om / "fusion_result.json").is_file()
    monkeypatch.setenv("ATC_FUSES", "silent")
    subprocess.run([om / "atc.sh"], check=True, stdout=subprocess.DEVNULL)
    assert (om / "model.om").is_file()
    assert not (om / "fusion_result.json").exists()
    monkeypatch.setenv("ATC_FAILS", "code")
    assert subprocess.run([om / "atc.sh"], check=False, capture_output=True).returncode
    assert not (om / "model.om").exists()


def test_a_compiled_model_that_was_changed_is_refused(compiled: tuple[Path, dict[str, Any]]) -> None:
    path = compiled[0] / "om" / "model.om"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ArtifactError, match=r"om/model\.om was changed"):
        validate.validate(compiled[0], quick=True)


def test_what_lies_beside_the_model_and_no_script_makes_fails_the_files(
    pending: tuple[Path, dict[str, Any]],
) -> None:
    (pending[0] / "om" / "kernel_meta.json").write_text("{}")
    check = check_of(validate.validate(pending[0], quick=True), "files")
    assert check.status == "failed" and "om/kernel_meta.json" in check.detail


@pytest.mark.usefixtures("acl", "one_npu")
def test_an_offline_model_is_loaded_by_its_name(compiled: tuple[Path, dict[str, Any]]) -> None:
    made = manifest.load(compiled[0])
    images = np.random.default_rng(0).standard_normal((3, 3, *made.size), np.float32)
    with (
        vconv.load(compiled[0], "npu", "om-fp32") as session,
        vconv.load(compiled[0], variant="onnx-fp32") as other,
    ):
        found, expected = session(images), other(images)
        assert found.keys() == expected.keys()
        for name, array in found.items():
            np.testing.assert_allclose(array, expected[name], rtol=0, atol=1e-4)


@pytest.fixture
def by_size(exported: Callable[..., Any], size: tuple[int, int], atc: Path) -> Path:
    """An artifact whose offline model has two sizes, compiled by the stand-in for ATC for a batch of 2."""
    folder: Path = exported("by-size", size="dynamic", batch=2, gears_size=[OTHER_SIZE, size])[0]
    return folder


@pytest.mark.usefixtures("acl", "one_npu")
def test_a_model_with_gears_by_size_is_judged_at_its_sizes_and_at_no_other(
    by_size: Path, size: tuple[int, int]
) -> None:
    record = next(one for one in manifest.load(by_size).variants if one.offline)
    assert record.offline is not None and record.offline.gears_size == tuple(sorted([OTHER_SIZE, size]))
    assert record.contract.input.shape == (2, 3, "height", "width") and record.batch == 2
    assert "batch" not in record.contract.axes
    report = validate.validate(by_size, quick=True, device="npu")
    row = row_of(report, "om-fp32")
    assert (row.status, row.batches) == ("passed", (2,))
    judged = {one.size: one for one in row.sizes}
    assert judged[OTHER_SIZE].skipped == "" and judged[OTHER_SIZE].vector_relative_error is not None
    others = [one for one in row.sizes if one.size != OTHER_SIZE]
    assert len(others) == 3 and all("was compiled for" in one.skipped for one in others)
    assert {check.name for check in report.checks if check.status == "failed"} == set()
    golden = manifest.load(by_size).golden
    assert golden is not None and [one.size for one in golden.elsewhere] == [*judged]


@pytest.mark.usefixtures("acl", "one_npu")
def test_a_model_with_gears_by_size_is_loaded_and_refuses_another_size(by_size: Path) -> None:
    images = np.random.default_rng(0).standard_normal((3, 3, *OTHER_SIZE), np.float32)
    with (
        vconv.load(by_size, "npu", "om-fp32") as session,
        vconv.load(by_size, variant="onnx-fp32") as other,
    ):
        found, expected = session(images), other(images)
        for name, array in found.items():
            np.testing.assert_allclose(array, expected[name], rtol=0, atol=1e-4)
        with pytest.raises(InputError, match="H and W one of"):
            session(images.repeat(2, axis=2))
    shown = CliRunner().invoke(main, ["info", str(by_size)])
    sizes = " ".join(shown.stdout.split())
    assert f"gears {OTHER_SIZE[0]}x{OTHER_SIZE[1]}" in sizes or f", {OTHER_SIZE[0]}x{OTHER_SIZE[1]}" in sizes


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ("64,64;64,72", "--gears-size does not fit the patches"),
        ("32,64;64,32", "--gears-size lacks the size of the recorded images"),
    ],
)
def test_gears_by_size_that_do_not_fit_the_network_leave_nothing(
    sizes: str, said: str, small_name: str, tmp_path: Path
) -> None:
    arguments = ["--weights", "synthetic:1", "--out", str(tmp_path / "out"), "--size", "dynamic"]
    wanted = ["--format", "om", "--soc", SOC, "--gears-size", sizes]
    result = CliRunner().invoke(main, ["export", small_name, *arguments, *wanted])
    assert result.exit_code == 2 and said in result.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_cpu_does_not_load_one_and_bisect_does_not_take_one_apart(
    compiled: tuple[Path, dict[str, Any]],
) -> None:
    with pytest.raises(UnavailableError, match="acl cannot run here"):
        vconv.load(compiled[0], variant="om-fp32")
    with pytest.raises(UnknownNameError, match="unknown variant"):
        vconv.bisect(compiled[0], "om-fp32")


def test_a_failed_atc_is_one_line_and_leaves_nothing(
    small_name: str, atc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATC_FAILS", "code")
    home = tmp_path / "home"
    home.mkdir()
    arguments = ["--weights", "synthetic:1", "--out", str(home / "out"), "--format", "om", "--soc", SOC]
    result = CliRunner().invoke(main, ["export", small_name, *arguments, "--json"])
    last = result.stderr.splitlines()[-1]
    assert (result.exit_code, result.stdout) == (1, "")
    assert last.startswith("error: atc did not compile the graph | got EZ3003: No supported Ops kernel")
    assert [*home.iterdir()] == []


def test_weights_that_no_graph_can_hold_are_refused_before_any_graph_is_made(
    small_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline_model, "_GRAPH_BYTES", ONNX_ROUTE.greatest_bytes - 1000)
    arguments = ["--weights", "synthetic:1", "--out", str(tmp_path / "out"), "--format", "om", "--soc", SOC]
    result = CliRunner().invoke(main, ["export", small_name, *arguments])
    assert result.exit_code == 2
    assert "the weights do not fit an offline model's graph" in result.stderr.splitlines()[-1]
    assert "model.onnx" not in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("without_atc")
def test_the_terminal_says_plainly_that_the_model_is_not_made(small_name: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--weights", "synthetic:1", "--out", str(out), "--golden", "none"]
    wanted = ["--format", "om", "--soc", SOC, "--gears", "1,2", "--om-precision", "mixed_float16"]
    result = CliRunner().invoke(main, ["export", small_name, *arguments, *wanted])
    assert result.exit_code == 0, result.output
    assert "om/model.om is not made, because atc is not on PATH" in result.stderr
    assert "om/model.om is not made: no atc on PATH; om/atc.sh makes it" in " ".join(result.stdout.split())
    shown = CliRunner().invoke(main, ["info", str(out)])
    line = " ".join(shown.stdout.split())
    assert f"{SOC}, mixed_float16, gears 1, 2; not hashed: the script beside it makes it later" in line


def test_a_manifest_of_before_there_were_offline_models_is_still_read(small_artifact: Path) -> None:
    content = json.loads((small_artifact / manifest.MANIFEST_FILE).read_text())
    for variant in content["variants"]:
        assert variant.pop("offline") is None
    made = manifest.Manifest.model_validate_json(json.dumps(content))
    assert made == manifest.load(small_artifact)
    assert made.made_later == ()
