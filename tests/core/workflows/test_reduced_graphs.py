"""Graphs in reduced precision through the whole way: export, manifest, validation."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import vconv
from vconv.artifact import manifest
from vconv.artifact.records import VariantRecord
from vconv.artifact.reduction_records import ReductionRecord
from vconv.catalog.systems import SYSTEMS, miniature
from vconv.convert.ascend.atc import KEEP_DTYPE_FILE
from vconv.convert.files.safetensors_file import read_header
from vconv.convert.reduced.plan import Plan
from vconv.errors import InputError
from vconv.precisions import REDUCED_PRECISIONS
from vconv.runtime.devices.table import find_device
from vconv.runtime.inputs.images import natural_images
from vconv.types import WEIGHTS_FILE, silent
from vconv.validators.accuracy.limits import Limit
from vconv.workflows import reduction_plans
from vconv.workflows.reduced import calibration_images
from vconv.workflows.reduction_plans import Planner

Refused = Callable[..., AbstractContextManager[None]]
QUICK: dict[str, Any] = {"quick": True, "budget": 1e-3}
ALL = [row.asked for row in REDUCED_PRECISIONS.values()]
NORM = "Sqrt"
"""The operator of a LayerNorm that is spelled out, and of nothing else in these graphs."""


def records(folder: Path) -> dict[str, VariantRecord]:
    return {one.variant: one for one in manifest.load(folder).variants if one.reduction}


def typed_nodes(path: Path, operator: str) -> Counter[str]:
    """Count the nodes of an operator by the type of what they give."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False))
    kinds = {
        one.name: one.type.tensor_type.elem_type for one in (*model.graph.value_info, *model.graph.output)
    }
    names = [node.output[0] for node in model.graph.node if node.op_type == operator]
    return Counter(onnx.TensorProto.DataType.Name(kinds[name]) for name in names)


def test_every_precision_is_a_folder_with_its_graphs_and_its_record(reduced_artifact: Path) -> None:
    found = records(reduced_artifact)
    for precision, row in REDUCED_PRECISIONS.items():
        npu = [] if precision == "int8-dynamic" else [f"onnx-{precision}-npu"]
        for name in [f"onnx-{precision}", *npu]:
            record = found.pop(name)
            assert (record.precision, record.weights) == (precision, f"{precision}/{WEIGHTS_FILE}")
            assert record.contract.input.dtype == "float32"
            assert {one.dtype for one in record.contract.outputs.values()} == {"float32"}
            assert record.reduction is not None and 0 < record.reduction.share <= 1
            assert bool(record.reduction.quantised) == (row.onnx == "INT8")
            assert bool(record.reduction.images) == (precision not in ("fp16", "bf16"))
            assert record.reduction.made_up == (precision not in ("fp16", "bf16"))
    assert found == {}
    files = {
        path.relative_to(reduced_artifact).as_posix()
        for one in REDUCED_PRECISIONS
        for path in (reduced_artifact / one).iterdir()
    }
    whole = {f"{one}/{name}" for one in REDUCED_PRECISIONS for name in ("model.onnx", WEIGHTS_FILE)}
    npu = {f"{one}/model.npu.onnx" for one in REDUCED_PRECISIONS if one != "int8-dynamic"}
    assert files == {*whole, *npu, f"mixed/{KEEP_DTYPE_FILE}"}
    assert files <= manifest.load(reduced_artifact).files.keys()


def test_the_manifest_says_how_each_was_planned(reduced_artifact: Path) -> None:
    made = {name: one.reduction for name, one in records(reduced_artifact).items()}
    assert made["onnx-fp16"] == ReductionRecord(share=1.0)
    mixed, whole = made["onnx-mixed"], made["onnx-int8"]
    assert mixed is not None and whole is not None
    graph = onnx.load(reduced_artifact / "model.onnx", load_external_data=False).graph
    assert {*mixed.kept} <= {node.name for node in graph.node}
    assert (mixed.images, mixed.made_up, whole.images) == (16, True, 16)
    stored = read_header(reduced_artifact / "int8" / WEIGHTS_FILE)
    assert {name.removesuffix(".int8") for name in stored if name.endswith(".int8")} == {*whole.quantised}
    assert 0.5 < whole.share < 1


def test_a_graph_in_reduced_precision_has_weights_of_its_type_at_their_share_of_the_size(
    reduced_artifact: Path,
) -> None:
    def nbytes(folder: Path) -> int:
        return sum(entry.nbytes for entry in read_header(folder / WEIGHTS_FILE).values())

    whole = nbytes(reduced_artifact)
    assert nbytes(reduced_artifact / "fp16") * 2 == whole
    assert nbytes(reduced_artifact / "int8") < 0.6 * whole
    kinds = {
        name: {entry.dtype for entry in read_header(reduced_artifact / name / WEIGHTS_FILE).values()}
        for name in REDUCED_PRECISIONS
    }
    assert kinds["fp16"] == {"F16"}
    assert kinds["bf16"] == {"BF16", "F32"}, "a convolution has no bfloat16 in opset 18"
    assert kinds["mixed"] == {"F16", "F32"}
    assert kinds["int8"] == kinds["int8-dynamic"] == {"I8", "F32"}


def test_the_batch_of_a_graph_for_an_npu_stays_fixed(reduced_artifact: Path) -> None:
    found = records(reduced_artifact)
    size = manifest.load(reduced_artifact).size
    assert found["onnx-fp16-npu"].contract.input.shape == (2, 3, *size)
    assert found["onnx-fp16"].contract.input.shape == ("batch", 3, *size)


def test_an_automatic_plan_keeps_norms_and_softmaxes_in_float32_and_says_so_to_atc(
    reduced_artifact: Path,
) -> None:
    path = reduced_artifact / "mixed" / "model.npu.onnx"
    for operator in ("LayerNormalization", "Softmax"):
        assert set(typed_nodes(path, operator)) == {"FLOAT"}
    assert typed_nodes(path, "MatMul")["FLOAT16"] > 0
    named = (reduced_artifact / "mixed" / KEEP_DTYPE_FILE).read_text().split()
    model = onnx.load(path, load_external_data=False)
    softmaxes = {node.name for node in model.graph.node if node.op_type == "Softmax"}
    assert softmaxes <= set(named)


@pytest.fixture
def any_size_artifact(once: Callable[..., Path]) -> Path:
    """A ViT with a graph for images of any size; opset 13 spells every LayerNorm out. It is not changed."""
    small = miniature(SYSTEMS["vit_small_patch14_reg4_dinov2.lvd142m"])
    args = {**small.config["model_args"], "depth": 1}
    system = replace(small, config={**small.config, "model_args": args})
    wanted = [name for name in ALL if name != "int8-dynamic"]

    def make(out: Path) -> None:
        vconv.export(system, "synthetic:1", out, precision=wanted, npu_opset=13, size="dynamic", batch=2)

    return once("reduced-any-size", make)


def test_a_graph_with_an_older_opset_is_reduced(any_size_artifact: Path) -> None:
    static = any_size_artifact / "fp16" / "model.npu.onnx"
    assert onnx.load(static, load_external_data=False).opset_import[0].version == 13
    assert set(typed_nodes(static, NORM)) == {"FLOAT"}
    products = typed_nodes(static, "MatMul")
    assert products["FLOAT16"] == 6 and products["FLOAT"] > 0, "the resampling of positions stays in float32"


def test_a_graph_for_any_size_is_reduced(any_size_artifact: Path, tmp_path: Path) -> None:
    found = records(any_size_artifact)
    assert found["onnx-fp16"].contract.input.shape == ("batch", 3, "height", "width")
    ranges = found["onnx-int8"].reduction
    assert ranges is not None and len(ranges.quantised) == 4
    images = np.random.default_rng(0).standard_normal((1, 3, 42, 70), np.float32)
    with (
        vconv.load(any_size_artifact, variant="onnx-fp32") as wide,
        vconv.load(any_size_artifact, variant="onnx-int8") as whole,
    ):
        expected, actual = wide(images), whole(images)
    for name, value in expected.items():
        error = np.linalg.norm(actual[name] - value) / np.linalg.norm(value)
        assert 1e-5 < error < 0.1, name
    assert vconv.validate(any_size_artifact, reports=tmp_path, **QUICK).status == "passed"


def test_plans_see_images_of_every_size_at_which_the_graph_is_judged(
    any_size_artifact: Path, tmp_path: Path
) -> None:
    artifact = shutil.copytree(any_size_artifact, tmp_path / "artifact")
    sizes = [(28, 70), (70, 28)]
    images = natural_images(4, 50)
    made = calibration_images(artifact, images, 0, manifest.load(artifact).size, sizes)
    assert [one.shape[2:] for one in made.every] == [manifest.load(artifact).size, *sizes]
    great = replace(made, elsewhere=tuple(50 * one for one in made.elsewhere))
    plans = [
        Planner(artifact, given, 2, None, find_device("cpu"), silent).plan("int8")[0]
        for given in (replace(made, elsewhere=()), great)
    ]
    wider = [
        plans[1].quantised[name].activation.greatest > how.activation.greatest
        for name, how in plans[0].quantised.items()
        if how.activation is not None and name in plans[1].quantised
    ]
    assert any(wider)


def test_a_plan_must_fit_at_every_size(any_size_artifact: Path) -> None:
    size = manifest.load(any_size_artifact).size
    made = calibration_images(any_size_artifact, natural_images(4, 50), 0, size, [(28, 70)])
    overflowing = replace(made, elsewhere=tuple(1e6 * one for one in made.elsewhere))
    for given, fits in ((made, True), (overflowing, False)):
        planner = Planner(any_size_artifact, given, 2, None, find_device("cpu"), silent)
        assert planner.tried(Plan("fp16")).fits == fits


@pytest.mark.parametrize(("part", "fits"), [(0.7, True), (0.9, False)])
def test_a_plan_may_take_up_a_part_of_the_limit_only(
    part: float, fits: bool, any_size_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = manifest.load(any_size_artifact).size
    images = calibration_images(any_size_artifact, natural_images(4, 50), 0, size)
    with (
        vconv.load(any_size_artifact, variant="onnx-fp32") as wide,
        vconv.load(any_size_artifact, variant="onnx-fp16", engine="simulated-rounding") as narrow,
    ):
        pairs = [(narrow(one[None]), wide(one[None])) for one in images.pixel_values]
    lost = max(
        float(np.linalg.norm(actual[name] - wanted) / np.linalg.norm(wanted))
        for actual, expected in pairs
        for name, wanted in expected.items()
    )
    limit = Limit({"vector_relative_error": lost / part}, "this test")
    monkeypatch.setattr(reduction_plans, "STRICT", {("fp16", "fp16"): limit})
    planner = Planner(any_size_artifact, images, 2, None, find_device("cpu"), silent)
    assert planner.tried(Plan("fp16")).fits == fits


def test_a_network_of_convolutions_is_reduced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    vconv.export(miniature(SYSTEMS["dinov3-convnext-tiny"]), "synthetic:1", out, precision=ALL, batch=2)
    assert set(typed_nodes(out / "fp16" / "model.onnx", "Conv")) == {"FLOAT16"}
    assert set(typed_nodes(out / "int8" / "model.onnx", "Conv")) == {"FLOAT"}
    report = vconv.validate(out, **QUICK)
    assert report.status == "passed", report.diagnosis
    judged = {row.variant for row in report.variants if row.status == "passed"}
    assert records(out).keys() <= judged


def test_attention_of_rank_3_is_reduced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    system = miniature(SYSTEMS["dinov3-vits16"])
    vconv.export(
        system, "synthetic:1", out, precision=["bf16", "int8"], npu_opset=17, attention="rank3", batch=2
    )
    static = out / "bf16" / "model.npu.onnx"
    assert set(typed_nodes(static, "Conv")) == {"FLOAT"}
    assert set(typed_nodes(static, "LayerNormalization")) == {"FLOAT"}
    made = records(out)["onnx-int8-npu"].graph
    assert made is not None and "attention-rank3" in made.passes
    assert vconv.validate(out, **QUICK).status == "passed"


@pytest.mark.parametrize("precision", ["int8", "auto"])
def test_a_precision_in_which_no_product_is_left_is_refused(
    precision: str, tmp_path: Path, refused: Refused
) -> None:
    system = miniature(SYSTEMS["dinov3-vits16"])
    with refused(
        InputError, f"no product can be in low precision with --precision {precision}", "got --max-drop 1e-09"
    ):
        vconv.export(system, "synthetic:1", tmp_path / "out", precision=[precision], max_drop=1e-9)
    assert not (tmp_path / "out").exists()
