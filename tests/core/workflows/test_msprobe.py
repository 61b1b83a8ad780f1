from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from msprobe_reader import pairs

import vconv
from vconv.artifact.artifact import Artifact
from vconv.cli import main
from vconv.errors import ArtifactError, InputError, UnknownNameError, VconvError
from vconv.validators.accuracy.golden import recorded

pytestmark = pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
SIMULATED: dict[str, Any] = {"device": "npu-sim", "profile": "310p"}


@pytest.fixture
def dumped(small_artifact: Path, tmp_path: Path) -> dict[str, Any]:
    return vconv.msprobe(small_artifact, out=tmp_path / "dumps", **SIMULATED)


def test_a_folder_for_msprobe_has_both_sides_and_a_table(
    dumped: dict[str, Any], small_artifact: Path, tmp_path: Path
) -> None:
    folder, artifact = tmp_path / "dumps", Artifact.open(small_artifact)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [
            *("README.txt", "SIMULATED.txt", "golden", "input", "msprobe.json", "operators.json", "target"),
            dumped["result"],
        ]
    )
    images = np.fromfile(folder / "input" / "input_0.bin", np.float32)
    kept = recorded(artifact)
    assert kept is not None
    np.testing.assert_array_equal(images, kept[0][:2].ravel())
    np.testing.assert_array_equal(np.load(folder / "input" / "input_0.npy"), kept[0][:2])
    nodes = onnx.load(small_artifact / "model.npu.onnx", load_external_data=False).graph.node
    values = sum(len(node.output) for node in nodes)
    assert (dumped["graph"], dumped["batch"], dumped["nodes"]) == ("model.npu.onnx", 2, len(nodes))
    assert (dumped["golden_files"], len(list((folder / "golden").iterdir()))) == (values, values)
    tensors = pairs(folder)
    assert len(tensors) == dumped["target_files"] == len(nodes) - len(dumped["constants"])
    assert {node.op_type for node in nodes if node.name in dumped["constants"]} == {"Transpose", "Expand"}
    # The figures are those of the files: the largest difference and the relative L2, computed here.
    for row in dumped["rows"]:
        if row["output"] == 0:
            target, golden = (one.astype(np.float64) for one in tensors[row["operator"]])
            largest, distance = np.abs(target - golden).max(), np.linalg.norm(target - golden)
            assert row["figures"]["MaxAbsoluteError"] == pytest.approx(largest, rel=1e-12)
            expected = distance / np.linalg.norm(golden)
            assert row["figures"]["RelativeEuclideanDistance"] == pytest.approx(expected, rel=1e-9, abs=1e-15)
    # The simulated 310P rounds the operands of products to float16.
    worst = max(row["figures"]["RelativeEuclideanDistance"] for row in dumped["rows"])
    assert 1e-4 < worst < 1e-2
    assert dumped["departs"] == dumped["not_finite"] == []


def recorded_outputs(artifact: Path) -> dict[str, Any]:
    kept = recorded(Artifact.open(artifact))
    assert kept is not None
    return dict(kept[1])


def test_the_golden_outputs_of_the_graph_are_the_recorded_ones(
    dumped: dict[str, Any], small_artifact: Path, tmp_path: Path
) -> None:
    graph = onnx.load(small_artifact / "model.npu.onnx", load_external_data=False).graph
    makers = {node.output[0]: node.name for node in graph.node}
    for name, expected in recorded_outputs(small_artifact).items():
        (file,) = (tmp_path / "dumps" / "golden").glob(f"{makers[name]}.0.*.npy")
        np.testing.assert_allclose(np.load(file), expected[:2], rtol=1e-4, atol=1e-4)


def test_everything_simulated_says_so(dumped: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "dumps"
    assert dumped["simulated"]
    assert dumped["options"]["matmul"] == "fp16"
    assert "SIMULATED: simulated Ascend NPU, profile 310p" in (folder / "SIMULATED.txt").read_text()
    readme = (folder / "README.txt").read_text()
    for line in ("target/  SIMULATED: ", "operators.json   SIMULATED: ", f"{dumped['result']}   SIMULATED: "):
        assert f"\n{line}" in readme
    assert "weights: synthetic:1 (synthetic: not trained weights)" in readme
    kept = json.loads((folder / "msprobe.json").read_text())
    assert (kept["simulated"], kept["result"]) == (True, dumped["result"])


def test_the_readme_has_the_commands_of_msprobe(
    dumped: dict[str, Any], small_artifact: Path, tmp_path: Path
) -> None:
    folder, graph = tmp_path / "dumps", small_artifact / "model.npu.onnx"
    results = f"{folder}-results"
    lines = [line.strip() for line in (folder / "README.txt").read_text().splitlines()]
    sides = f"-gp {folder}/golden -fr"
    for line in (
        f"mkdir -m 750 {results}",
        f"msprobe compare -m offline_data -tp {folder}/target {sides} {folder}/operators.json -o {results}",
        "atc --mode=1 --om=MODEL.om --json=om.json",
        f"msprobe compare -m offline_data -tp NPU_DUMP {sides} om.json -o {results}",
        f"msprobe compare -m offline_model -tp MODEL.om -gp {graph} --input_data "
        f"{folder}/input/input_0.bin -ofs False -o {results}",
    ):
        assert line in lines


def test_on_the_cpu_only_the_golden_side_is_written(small_artifact: Path, tmp_path: Path) -> None:
    found = vconv.msprobe(small_artifact, out=tmp_path / "dumps", variant="onnx-fp32")
    names = sorted(path.name for path in (tmp_path / "dumps").iterdir())
    assert names == ["README.txt", "golden", "input", "msprobe.json"]
    assert (found["graph"], found["simulated"], "rows" in found) == ("model.onnx", False, False)
    assert "target/" not in (tmp_path / "dumps" / "README.txt").read_text()


@pytest.mark.parametrize(
    ("atc_is_there", "gears", "graph"),
    [
        pytest.param(False, (), "om/model.onnx", id="later"),
        pytest.param(True, (), "model.npu.onnx", id="compiled", marks=pytest.mark.full),
        pytest.param(True, (1, 2), "model.onnx", id="compiled_with_gears", marks=pytest.mark.full),
    ],
)
def test_the_graph_is_the_one_that_atc_compiles(
    atc_is_there: bool,
    gears: tuple[int, ...],
    graph: str,
    small_name: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if atc_is_there:
        request.getfixturevalue("atc")
    else:
        monkeypatch.setenv("PATH", os.devnull)
    artifact = tmp_path / "artifact"
    vconv.export(small_name, "synthetic:1", artifact, format="om", soc="Ascend910B4", gears=gears)
    found = vconv.msprobe(artifact, out=tmp_path / "dumps")
    assert found["graph"] == graph
    assert f"-tp {artifact}/om/model.om -gp {artifact}/{graph}" in " ".join(
        found["commands"]["offline_model"]
    )
    for name, expected in recorded_outputs(artifact).items():
        makers = {node.output[0]: node.name for node in onnx.load(artifact / graph).graph.node}
        (file,) = (tmp_path / "dumps" / "golden").glob(f"{makers[name]}.0.*.npy")
        value = np.load(file)
        np.testing.assert_allclose(value, expected[: len(value)], rtol=1e-4, atol=1e-4)


def test_tables_of_msprobe_are_set_beside_ours(
    dumped: dict[str, Any], small_artifact: Path, tmp_path: Path
) -> None:
    theirs = tmp_path / "dumps" / dumped["result"]
    out = tmp_path / "beside"
    found = vconv.msprobe(small_artifact, out=out, device="npu-sim", fusions="on", beside=theirs)
    assert [pair["found"] for pair in found["beside"]] == ["both"] * len(dumped["rows"])
    ours = {(row["operator"], row["output"]): row["figures"] for row in found["rows"]}
    before = {(row["operator"], row["output"]): row["figures"] for row in dumped["rows"]}
    for pair in found["beside"]:
        key = pair["operator"], pair["output"]
        assert pair["relative_l2"] == ours[key]["RelativeEuclideanDistance"]
        printed = float(f"{before[key]['RelativeEuclideanDistance']:.6f}")
        assert pair["their_relative_l2"] == printed
        if pair["relative_l2"]:
            assert pair["ratio"] == pytest.approx(printed / pair["relative_l2"])
    with (out / "beside.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 1 + len(found["beside"])


WRONG: dict[str, tuple[dict[str, Any], type[VconvError], str]] = {
    "cuda": ({"device": "cuda"}, InputError, "cuda"),
    "fusions on a cpu": ({"fusions": "on"}, InputError, "--fusions"),
    "profile": ({"device": "npu-sim", "profile": "950"}, UnknownNameError, "unknown profile"),
    "variant": ({"variant": "onnx-fp16"}, UnknownNameError, "unknown graph | got 'onnx-fp16'"),
    "beside without figures": (
        {"beside": "README.md"},
        InputError,
        "README.md is not a table of msprobe | got No such file or directory",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_option_is_refused_in_one_line_and_nothing_is_written(
    case: str, small_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options, kind, told = WRONG[case]
    with pytest.raises(kind) as caught:
        vconv.msprobe(small_artifact, out=tmp_path / "dumps", **options)
    assert told in str(caught.value)
    assert not (tmp_path / "dumps").exists()


def test_a_table_needs_the_simulated_npu_beside_it(
    dumped: dict[str, Any], small_artifact: Path, tmp_path: Path
) -> None:
    table = tmp_path / "dumps" / dumped["result"]
    with pytest.raises(InputError, match="got --device cpu.*fix: add --device npu-sim"):
        vconv.msprobe(small_artifact, out=tmp_path / "other", beside=table)


def test_a_folder_is_replaced_only_by_force_and_only_if_all_of_it_is_ours(
    dumped: dict[str, Any], small_artifact: Path, tmp_path: Path
) -> None:
    out = tmp_path / "dumps"
    with pytest.raises(ArtifactError, match="files that vconv wrote for msprobe.*--force"):
        vconv.msprobe(small_artifact, out=out)
    (out / "result_of_hardware.csv").touch()
    with pytest.raises(ArtifactError, match="got result_of_hardware.csv.*move them away"):
        vconv.msprobe(small_artifact, out=out, force=True)
    assert (out / dumped["result"]).is_file()
    (out / "result_of_hardware.csv").unlink()
    (out / "golden" / "mine.npy").touch()
    with pytest.raises(ArtifactError, match="got golden/mine.npy.*move them away"):
        vconv.msprobe(small_artifact, out=out, force=True)
    (out / "golden" / "mine.npy").unlink()
    (out / "mine").mkdir()
    with pytest.raises(ArtifactError, match="got mine .*move them away"):
        vconv.msprobe(small_artifact, out=out, force=True)
    (out / "mine").rmdir()
    vconv.msprobe(small_artifact, out=out, force=True)
    assert not (out / "target").exists()
    with pytest.raises(ArtifactError, match="inside the artifact"):
        vconv.msprobe(small_artifact, out=small_artifact / "dumps")


def test_the_command_prints_what_it_wrote_and_what_is_simulated(small_artifact: Path, tmp_path: Path) -> None:
    def run(*words: str) -> str:
        done = CliRunner().invoke(main, ["msprobe", str(small_artifact), *words])
        assert done.exit_code == 0, done.output
        return done.stdout

    out = tmp_path / "dumps"
    shown = run("--out", str(out), "--device", "npu-sim", "--hf32", "none")
    assert "target     SIMULATED: " in shown
    assert "weights    synthetic:1 (synthetic)" in shown
    assert "next: msprobe compare -m offline_data" in shown
    (table,) = out.glob("result_*.csv")
    document = json.loads(
        run("--out", str(tmp_path / "b"), "--device", "npu-sim", "--beside", str(table), "--json")
    )
    assert document["simulated"] and len(document["beside"]) == len(document["rows"])
    beside = run("--out", str(tmp_path / "c"), "--device", "npu-sim", "--beside", str(table))
    assert f"ours (simulated) beside msprobe's: 20 of {len(document['rows'])} tensors" in beside
    golden = run("--out", str(tmp_path / "d"))
    assert "SIMULATED" not in golden and "next: msprobe compare -m offline_model -tp MODEL.om" in golden
