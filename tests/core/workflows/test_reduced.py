"""`vconv export --precision` the whole way: exported, validated, loaded, bisected, made again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

import vconv
from vconv.artifact import manifest
from vconv.artifact.manifest import Manifest
from vconv.catalog.systems import SYSTEMS, System
from vconv.cli import main
from vconv.convert.reduced.plan import Plan
from vconv.errors import InputError, WeightsError
from vconv.precisions import MIXED
from vconv.runtime.devices.table import find_device
from vconv.runtime.inputs.images import natural_images
from vconv.types import silent
from vconv.validators.accuracy import golden
from vconv.validators.report.card.command import export_options
from vconv.workflows import reduction_plans
from vconv.workflows.reduced import calibration_images
from vconv.workflows.reduction_plans import Planner

Refused = Callable[..., AbstractContextManager[None]]

ALL = ("fp16", "bf16", "auto", "int8", "int8-dynamic")
OUTLIER = 2.0**17
"""A factor that takes values of about 1 beyond float16, and is undone without rounding."""


@pytest.fixture
def system() -> System:
    """One system: what is tested here is the same for all."""
    return SYSTEMS["dinov3-vits16"]


@pytest.fixture
def reduced(reduced_artifact: Path, tmp_path: Path) -> Path:
    """A copy of an artifact with every reduced precision."""
    return shutil.copytree(reduced_artifact, tmp_path / "artifact")


def records(made: Manifest) -> dict[str, dict[str, object]]:
    return {record.variant: record.reduction.model_dump() for record in made.variants if record.reduction}


def test_a_validation_passes_and_says_what_cannot_be_judged_here(reduced: Path) -> None:
    report = vconv.validate(reduced, quick=True, budget=0.01)
    assert report.passed, report.diagnosis
    rows = {(row.variant, row.engine): row for row in report.variants}
    for name in records(manifest.load(reduced)):
        row = rows[name, "onnxruntime"]
        if "int8" in name:
            assert (row.status, row.arithmetic, bool(row.latency)) == ("passed", "int8", True)
            continue
        simulated = rows[name, "simulated-rounding"]
        kind = "bf16" if "bf16" in name else "fp16"
        assert (simulated.status, simulated.arithmetic, len(simulated.latency)) == ("passed", kind, 0)
        why = "engine computes fp32" if kind == "fp16" else "onnxruntime computes nothing in bf16"
        assert row.status == "skipped" and row.reason.startswith(why)
    skipped = [check for check in report.checks if check.status == "skipped"]
    assert [(one.name, "unverified" in one.detail) for one in skipped] == [
        ("int8/model.npu.onnx: NPU operators", True)
    ]


def test_what_rounds_is_near_torch_in_the_same_type(reduced: Path) -> None:
    pixel_values, expected = golden.load(reduced / "golden" / "golden.safetensors")
    for precision in ("fp16", "bf16"):
        with (
            vconv.load(reduced, variant=f"onnx-{precision}", engine="simulated-rounding") as ours,
            vconv.load(reduced, variant=f"patched-torch-{precision}") as torchs,
        ):
            for name, found in ours(pixel_values).items():
                wanted = expected[name].astype(np.float64)
                errors = [distance(one, wanted) for one in (found, torchs(pixel_values)[name])]
                assert 0.3 < errors[0] / errors[1] < 3, (precision, name, errors)


def test_onnx_runtime_computes_the_products_of_a_fixed_batch_in_whole_numbers(
    reduced: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    optimised = tmp_path / "optimised.onnx"

    class Saving(onnxruntime.SessionOptions):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.optimized_model_filepath = str(optimised)

    monkeypatch.setattr(onnxruntime, "SessionOptions", Saving)
    with vconv.load(reduced, variant="onnx-int8-npu"):
        nodes = onnx.load(optimised, load_external_data=False).graph.node
    quantised = records(manifest.load(reduced))["onnx-int8-npu"]["quantised"]
    count = sum(node.op_type in ("MatMulIntegerToFloat", "QLinearMatMul") for node in nodes)
    assert count == len(quantised)  # type: ignore[arg-type]


def distance(actual: NDArray[np.float32], expected: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def test_two_exports_are_the_same_bytes(reduced: Path, small_system: System, tmp_path: Path) -> None:
    vconv.export(small_system, "synthetic:1", tmp_path / "again", batch=2, precision=ALL)
    assert manifest.load(tmp_path / "again").files == manifest.load(reduced).files


def test_the_card_says_how_each_was_planned_and_which_options_make_it_again(reduced: Path) -> None:
    assert export_options(manifest.load(reduced)) == f"--batch 2 --precision {','.join(ALL)}"
    lines = (reduced / "README.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith(("| `mixed/`", "| `int8/`"))]
    assert [line.split(" | ")[4] for line in rows] == ["16 made-up images"] * 2


def test_a_variant_in_float16_is_bisected_by_what_rounds(reduced: Path) -> None:
    assert vconv.bisect(reduced, variant="onnx-fp16").engine == "simulated-rounding"


def test_info_and_export_say_how_each_was_planned(reduced: Path) -> None:
    told = CliRunner().invoke(main, ["info", str(reduced)]).output
    assert "precision mixed: 100.0% of the multiply-adds in float16" in " ".join(told.split())
    assert "planned on 16 made-up images" in " ".join(told.split())


def test_photographs_are_calibrated_on(small_system: System, tmp_path: Path) -> None:
    (tmp_path / "photographs").mkdir()
    for number, image in enumerate(natural_images(8, 100)):
        image.save(tmp_path / "photographs" / f"{number}.png")
    given = [tmp_path / "photographs"]
    vconv.export(
        small_system, "synthetic:1", tmp_path / "a", precision=["int8"], calibration=given, max_drop=0.5
    )
    made = manifest.load(tmp_path / "a")
    found = records(made)["onnx-int8"]
    assert (found["images"], found["made_up"], found["max_drop"]) == (8, False, 0.5)
    assert export_options(made) == "--precision int8 --max-drop 0.5"
    assert "| 8 photographs |" in (tmp_path / "a" / "README.md").read_text()


def test_ranges_of_too_few_photographs_are_tried_on_the_recorded_images(
    small_system: System, photographs: list[str], reduced_artifact: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    made = vconv.export(small_system, "synthetic:1", out, precision=["int8"], calibration=photographs)
    assert {row["variant"]: row["status"] for row in made["variants"]}["onnx-int8"] == "passed"
    few, many = (
        records(manifest.load(folder))["onnx-int8"]["quantised"] for folder in (out, reduced_artifact)
    )
    assert isinstance(few, dict) and isinstance(many, dict)
    assert 0 < len(few) < len(many)


def test_a_plan_that_loses_too_much_is_refused_with_advice_for_it_alone(
    small_system: System,
    photographs: list[str],
    tmp_path: Path,
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reduction_plans, "_OF_THE_LIMIT", 100.0)
    both = ["fp16", "int8"]
    with refused(InputError, "onnx-int8 (pooled", "fix: for int8, try --max-drop", "or leave it out"):
        vconv.export(small_system, "synthetic:1", tmp_path / "a", precision=both, calibration=photographs)
    assert not (tmp_path / "a").exists()


def with_outliers(source: Path, target: Path) -> None:
    """Multiply some channels of the values by a power of two, and undo it in the projection after them."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.onnx", "vconv*", "reports", "golden"))
    tensors = load_file(target / "model.safetensors")
    for name in [name for name in tensors if "layer.1.attention.v_proj" in name]:
        tensors[name][::7] *= OUTLIER
    tensors["layer.1.attention.o_proj.weight"][:, ::7] /= OUTLIER
    save_file(tensors, target / "model.safetensors", {"format": "pt"})


def test_outliers_overflow_float16_and_auto_keeps_them_in_float32(
    small_artifact: Path, small_system: System, tmp_path: Path, refused: Refused
) -> None:
    with_outliers(small_artifact, tmp_path / "weights")
    with refused(InputError, "NaN or Inf", "fix: leave fp16 out or use auto in its place"):
        vconv.export(small_system, tmp_path / "weights", tmp_path / "plain", precision=["fp16"])
    assert not (tmp_path / "plain").exists()
    made = vconv.export(small_system, tmp_path / "weights", tmp_path / "planned", precision=["auto"])
    mixed = {row["engine"]: row["status"] for row in made["variants"] if "mixed" in row["variant"]}
    assert mixed == {"onnxruntime": "skipped", "simulated-rounding": "passed"}
    found = records(manifest.load(tmp_path / "planned"))["onnx-mixed"]
    assert float(str(found["share"])) >= 0.8
    kept = list(found["kept"])  # type: ignore[call-overload]
    images = calibration_images(
        tmp_path / "planned", natural_images(4, 50), 0, manifest.load(tmp_path / "planned").size
    )
    planner = Planner(tmp_path / "planned", images, 1, None, find_device("cpu"), silent)
    nodes = [
        node.name
        for node in onnx.load(tmp_path / "planned" / "model.onnx", load_external_data=False).graph.node
    ]
    assert planner.tried(Plan(MIXED, frozenset(kept))).fits
    random = np.random.Generator(np.random.PCG64(0))
    fit = [
        planner.tried(Plan(MIXED, frozenset(random.choice(nodes, len(kept), replace=False)))).fits
        for _ in range(20)
    ]
    assert sum(fit) <= 2


def test_a_weight_beyond_float16_is_refused_in_one_line(
    small_artifact: Path, small_system: System, tmp_path: Path, refused: Refused
) -> None:
    with_outliers(small_artifact, tmp_path / "weights")
    tensors = load_file(tmp_path / "weights" / "model.safetensors")
    tensors["layer.1.attention.v_proj.weight"][::7] *= 64
    tensors["layer.1.attention.o_proj.weight"][:, ::7] /= 64
    save_file(tensors, tmp_path / "weights" / "model.safetensors", {"format": "pt"})
    with refused(WeightsError, "layer.1.attention.v_proj.weight", "--precision auto"):
        vconv.export(small_system, tmp_path / "weights", tmp_path / "plain", precision=["fp16"])
    made = vconv.export(small_system, tmp_path / "weights", tmp_path / "planned", precision=["auto"])
    mixed = {row["engine"]: row["status"] for row in made["variants"] if "mixed" in row["variant"]}
    assert mixed == {"onnxruntime": "skipped", "simulated-rounding": "passed"}


def test_a_smaller_loss_leaves_more_in_float32(reduced: Path, small_system: System, tmp_path: Path) -> None:
    vconv.export(small_system, "synthetic:1", tmp_path / "a", precision=["int8"], max_drop=0.001)
    found, before = (
        records(manifest.load(tmp_path / "a"))["onnx-int8"],
        records(manifest.load(reduced))["onnx-int8"],
    )
    losses = found["losses"]
    assert isinstance(losses, dict)
    assert max(losses["cosine"], losses["neighbours"]) <= 0.001
    assert float(str(found["share"])) < float(str(before["share"]))


def test_reduced_precision_needs_a_precision_to_plan(refused: Refused) -> None:
    with refused(InputError, "--max-drop"):
        vconv.export("dinov3-vits16", "synthetic", precision=["fp16"], max_drop=0.1)
