"""The scripts of a published folder run as users run them, and what they write is computed again here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import safetensors.numpy
from PIL import Image

import vconv
from vconv.artifact.manifest import Manifest
from vconv.runtime.inputs.images import natural_image
from vconv.validators.accuracy.metrics import METRICS, measure
from vconv.validators.report.publishing.programs import programs_of

ALONE = """
import runpy, sys
for name in ("vconv", "torch", "transformers", "timm", "PIL", "safetensors", "onnx"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a script where NumPy and ONNX Runtime alone can be imported."""
SYSTEMS = [
    "dinov3-vits16",
    pytest.param("vit_small_patch14_reg4_dinov2.lvd142m", marks=pytest.mark.full),
    pytest.param("vit_small_patch16_dinov3.lvd1689m", marks=pytest.mark.full),
    pytest.param("vit-base-patch16-224", marks=pytest.mark.full),
]

pytestmark = [pytest.mark.parametrize("system", SYSTEMS, indirect=True), pytest.mark.real_processes]


@pytest.fixture
def folder(small_artifact: Path, once: Callable[..., Path], tmp_path: Path) -> Path:
    """The folder that is published for an artifact that was not validated, to be changed."""
    made = once(
        f"published-{small_artifact.name}",
        lambda part: vconv.card(small_artifact, page="huggingface", out=part),
    )
    return shutil.copytree(made, tmp_path / "published")


def run(*command: str, status: int = 0) -> str:
    """Run Python elsewhere, without this checkout on its path, and return what it printed."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-B", *command],
        capture_output=True,
        text=True,
        env=environment,
        cwd="/",
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def results(folder: Path, name: str) -> Any:
    return json.loads((folder / "results" / name).read_text())


@pytest.mark.parametrize("options", [[], ["--variant", "onnx-fp32-npu"], ["--engine", "torch"]], ids=str)
def test_inference_gives_what_the_artifact_gives(folder: Path, tmp_path: Path, options: list[str]) -> None:
    picture, outputs = tmp_path / "photograph.png", tmp_path / "outputs.npz"
    natural_image(7).save(picture)
    printed = run(str(folder / "inference.py"), str(picture), *options, "--save", str(outputs))
    with vconv.load(folder, "cpu", "onnx-fp32") as session:
        expected = session([Image.open(picture)])
    found = np.load(outputs)
    assert set(found) <= set(expected)
    assert "torch" in options or set(found) == set(expected)
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-3, atol=2e-5)
        assert f"{name} {found[name].shape} float32" in printed


def test_the_accuracy_is_what_numpy_and_onnxruntime_give(folder: Path) -> None:
    printed = run("-c", ALONE, str(folder / "eval" / "eval_accuracy.py"))
    assert "passed within the limits named strict" in printed
    document = results(folder, "accuracy_eval.json")
    (entry,) = document["recomputed"]
    expected = safetensors.numpy.load_file(folder / "golden" / "golden.safetensors")
    pixel_values = expected.pop("pixel_values")
    graphs = {"onnx-fp32": "model.onnx", "onnx-fp32-npu": "model.npu.onnx"}
    assert {row["variant"] for row in entry["figures"]} == set(graphs)
    for variant, path in graphs.items():
        session = onnxruntime.InferenceSession(folder / path, providers=["CPUExecutionProvider"])
        names = [one.name for one in session.get_outputs()]
        actual = dict(zip(names, session.run(names, {"pixel_values": pixel_values}), strict=True))
        for name in expected:
            wanted = measure(name, actual[name], expected[name])
            rows = [row for row in entry["figures"] if (row["variant"], row["output"]) == (variant, name)]
            assert {row["metric"] for row in rows} < METRICS.keys()
            for row in rows:
                assert row["value"] == pytest.approx(wanted[row["metric"]], rel=1e-3, abs=1e-12)
                assert row["synthetic"] is True
    assert (folder / "logs" / "accuracy_eval.log").read_text() == printed
    assert entry["passed"] is True and entry["limits"] == "strict"
    assert entry["versions"]["onnxruntime"] == onnxruntime.__version__


def test_an_output_over_its_limit_ends_with_status_1_and_is_in_the_results(folder: Path) -> None:
    path = folder / "golden" / "golden.safetensors"
    tensors = safetensors.numpy.load_file(path)
    safetensors.numpy.save_file({**tensors, "cls": 1.01 * tensors["cls"]}, path)
    command = ("-c", ALONE, str(folder / "eval" / "eval_accuracy.py"), "--variant", "onnx-fp32")
    assert "FAILED within the limits named strict" in run(*command, status=1)
    assert "passed within the limits named card" in run(*command, "--limits", "card")
    (entry,) = results(folder, "accuracy_eval.json")["recomputed"]  # the same engine and device, once
    assert entry["passed"] is True
    run(*command, status=1)
    (entry,) = results(folder, "accuracy_eval.json")["recomputed"]
    failed = {(row["output"], row["metric"]) for row in entry["figures"] if not row["passed"]}
    assert failed == {("cls", "vector_relative_error")}


def test_the_worst_image_counts(folder: Path) -> None:
    path = folder / "golden" / "golden.safetensors"
    tensors = safetensors.numpy.load_file(path)
    noise = np.random.default_rng(0).standard_normal(tensors["patches"][:1].shape)
    tensors["patches"][:1] += 0.3 * noise.astype(np.float32)
    safetensors.numpy.save_file(tensors, path)
    command = ("-c", ALONE, str(folder / "eval" / "eval_accuracy.py"), "--variant", "onnx-fp32")
    run(*command, status=1)
    (entry,) = results(folder, "accuracy_eval.json")["recomputed"]
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    (actual,) = session.run(["patches"], {"pixel_values": tensors["pixel_values"]})
    wanted = measure("patches", actual, tensors["patches"])
    found = {row["metric"]: row["value"] for row in entry["figures"] if row["output"] == "patches"}
    assert found == pytest.approx({name: wanted[name] for name in found}, rel=1e-6)
    assert found["cosine"] < 0.999 and found["token_cosine_min"] < found["cosine"]


def test_outputs_that_are_no_numbers_or_are_missing_fail(folder: Path) -> None:
    path = folder / "golden" / "golden.safetensors"
    tensors = safetensors.numpy.load_file(path)
    tensors["pixel_values"][0, 0, 0, 0] = np.nan
    safetensors.numpy.save_file({**tensors, "unheard": tensors["cls"]}, path)
    script = str(folder / "eval" / "eval_accuracy.py")
    printed = run("-c", ALONE, script, "--variant", "onnx-fp32", status=1)
    assert "unheard  no such output FAILED" in printed
    assert "cls  shape" in printed and "NaN or Inf" in printed


@pytest.mark.full
def test_the_accuracy_in_pytorch_is_within_the_strict_limits(folder: Path) -> None:
    printed = run(str(folder / "eval" / "eval_accuracy.py"), "--engine", "torch")
    assert "passed within the limits named strict" in printed
    (entry,) = results(folder, "accuracy_eval.json")["recomputed"]
    assert entry["engine"] == "torch" and entry["figures"]


@pytest.mark.parametrize(
    ("options", "batch", "runs"),
    [(["--runs", "12", "--batch", "3"], 3, 12), (["--variant", "onnx-fp32-npu", "--runs", "9"], 2, 9)],
)
def test_the_performance_is_that_of_the_samples(
    folder: Path, options: list[str], batch: int, runs: int
) -> None:
    printed = run("-c", ALONE, str(folder / "eval" / "eval_performance.py"), "--warmups", "1", *options)
    found = results(folder, "performance_eval.json")
    samples = found["samples_ms"]
    assert (found["batch"], found["runs"], len(samples)) == (batch, runs, runs)
    assert min(samples) > 0
    assert found["p50_ms"] == pytest.approx(np.median(samples))
    assert found["p90_ms"] == (pytest.approx(np.percentile(samples, 90)) if runs >= 10 else None)
    assert found["p99_ms"] is None  # a hundred runs are the least
    assert found["images_per_second"] == pytest.approx(1e3 * batch / np.median(samples))
    assert "p99_ms none: needs --runs 100 or more" in printed.splitlines()
    assert f"mean_ms {np.mean(samples):.3f}" in printed.splitlines()


WRONG = [
    (["inference.py", "x.png", "--device", "tpu"], 2, "--device tpu is none of cpu, cuda, npu"),
    (["eval/eval_performance.py", "--device", "npu:x"], 2, "--device npu:x is none of cpu, cuda, npu"),
    (["eval/eval_performance.py", "--device", "npu"], 2, "expected CANNExecutionProvider | fix: "),
    (["inference.py", "x.png"], 2, "a package cannot be imported | got import of PIL halted"),
    (["eval/eval_accuracy.py", "--engine", "torch"], 2, "a package cannot be imported | got import of t"),
    (["eval/eval_performance.py", "--engine", "torch"], 2, "a package cannot be imported | got import of t"),
    (["eval/eval_performance.py", "--batch", "0"], 2, "error: --batch 0 is less than 1"),
    (["eval/eval_performance.py", "--runs", "0"], 2, "error: --runs 0 is less than 1\n"),
    (["eval/eval_performance.py", "--warmups", "-1"], 2, "error: --warmups -1 is less than 0\n"),
    (["inference.py", "x.png", "--save", "/nope/x.npz"], 2, "cannot save /nope/x.npz | got no folder /nope"),
    (["inference.py", "x.png", "--save", "/"], 2, "cannot save / | got a folder"),
    (["eval/eval_performance.py", "--variant", "onnx-fp32-npu", "--batch", "5"], 2, "takes --batch 2"),
]


@pytest.mark.parametrize(("command", "status", "said"), WRONG)
def test_what_cannot_be_run_is_refused(folder: Path, command: list[str], status: int, said: str) -> None:
    script, *options = command
    printed = run("-c", ALONE, str(folder / script), *options, status=status)
    assert said in printed and "Traceback" not in printed


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("absent.png", None, "No such file or directory"),
        ("text.png", b"no picture", "cannot identify image file"),
        ("cut.png", b"", "image file is truncated"),
    ],
    ids=["absent", "text", "cut off"],
)
def test_a_file_that_is_no_image_is_refused(
    folder: Path, tmp_path: Path, name: str, content: bytes | None, reason: str
) -> None:
    path = tmp_path / name
    if content is not None:
        natural_image(7).save(path)
        path.write_bytes(content or path.read_bytes()[:-2000])
    (line,) = run(str(folder / "inference.py"), str(path), status=2).splitlines()
    assert line.startswith(f"cannot read {path} | got {reason}") and " | fix: " in line


@pytest.mark.parametrize(
    ("file", "options", "said"),
    [
        ("model.onnx", [], "cannot open model.onnx on cpu | got "),
        ("model.safetensors", [], "cannot open model.onnx on cpu | got "),
        pytest.param(
            *("model.safetensors", ["--engine", "torch"], "cannot open config.json on cpu | got "),
            marks=pytest.mark.full,
        ),
        ("golden/golden.safetensors", [], "cannot read golden/golden.safetensors | got a damaged file: "),
        ("results/accuracy_eval.json", [], "cannot read results/accuracy_eval.json | got "),
    ],
)
def test_a_file_that_was_cut_off_or_is_missing_is_refused(
    folder: Path, file: str, options: list[str], said: str
) -> None:
    path = folder / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    script = str(folder / "eval" / "eval_accuracy.py")
    last = run(script, *options, status=2).splitlines()[-1]
    assert last.startswith(said) and " | fix: " in last
    path.unlink()
    if not file.startswith("results"):
        last = run(script, *options, status=2).splitlines()[-1]
        assert file in last and ("is missing" in last or "No such file" in last) and " | fix: " in last


def test_pytorch_without_an_npu_is_refused(folder: Path) -> None:
    script = str(folder / "eval" / "eval_performance.py")
    printed = run(script, "--engine", "torch", "--device", "npu", status=2)
    assert printed.splitlines()[-1].startswith(
        "a package cannot be imported | got No module named 'torch_npu'"
    )


def test_pytorch_without_a_device_is_refused(folder: Path) -> None:
    script = str(folder / "eval" / "eval_performance.py")
    printed = run(script, "--engine", "torch", "--device", "cuda:99", status=2)
    assert printed.splitlines()[-1].startswith("PyTorch cannot run on cuda:99 | got ")


@pytest.mark.full
def test_an_image_is_preprocessed_by_the_library_if_numpy_cannot(
    folder: Path, tmp_path: Path, made: Manifest
) -> None:
    text = programs_of(made, [], {"image_processor_type": "Strange"})["inference.py"]
    assert "def resized" not in text
    (folder / "inference.py").write_text(text)
    picture, outputs = tmp_path / "photograph.png", tmp_path / "outputs.npz"
    natural_image(7).save(picture)
    run(str(folder / "inference.py"), str(picture), "--save", str(outputs))
    with vconv.load(folder, "cpu", "onnx-fp32") as session:
        expected = session([Image.open(picture)])
    np.testing.assert_allclose(np.load(outputs)["cls"], expected["cls"], rtol=1e-3, atol=2e-5)
