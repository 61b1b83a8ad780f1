"""Graphs in reduced precision through the whole way: export, manifest, validation."""

from __future__ import annotations

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
from vconv.catalog.systems import SYSTEMS, miniature
from vconv.convert.ascend.atc import KEEP_DTYPE_FILE
from vconv.convert.files.safetensors_file import read_header
from vconv.errors import InputError
from vconv.precisions import REDUCED_PRECISIONS
from vconv.types import WEIGHTS_FILE

Refused = Callable[..., AbstractContextManager[None]]
QUICK: dict[str, Any] = {"quick": True, "budget": 1e-3}
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
    made = manifest.load(reduced_artifact)
    assert {f"{one}/{WEIGHTS_FILE}" for one in REDUCED_PRECISIONS} <= set(made.files)


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


def test_an_artifact_in_every_precision_is_valid(reduced_artifact: Path, tmp_path: Path) -> None:
    report = vconv.validate(reduced_artifact, reports=tmp_path, **QUICK)
    assert report.status == "passed", [check for check in report.checks if check.status == "failed"]
    rows = {(row.variant, row.engine): row for row in report.variants}
    for name in records(reduced_artifact):
        engine = "onnxruntime" if "int8" in name else "simulated-rounding"
        assert rows[name, engine].status == "passed"
        if engine == "simulated-rounding":
            assert not rows[name, engine].latency, "that of a simulation says nothing"
            assert rows[name, "onnxruntime"].status == "skipped"


def test_a_graph_with_an_older_opset_and_one_for_any_size_are_reduced(tmp_path: Path) -> None:
    """Opset 13 spells every LayerNorm out."""
    out = tmp_path / "out"
    small = miniature(SYSTEMS["vit_small_patch14_reg4_dinov2.lvd142m"])
    args = {**small.config["model_args"], "depth": 1}
    system = replace(small, config={**small.config, "model_args": args})
    vconv.export(
        system, "synthetic:1", out, precision=["fp16", "int8"], npu_opset=13, size="dynamic", batch=2
    )
    static = out / "fp16" / "model.npu.onnx"
    assert onnx.load(static, load_external_data=False).opset_import[0].version == 13
    assert set(typed_nodes(static, NORM)) == {"FLOAT"}
    products = typed_nodes(static, "MatMul")
    assert products["FLOAT16"] == 6 and products["FLOAT"] > 0, "the resampling of positions stays in float32"
    found = records(out)
    assert found["onnx-fp16"].contract.input.shape == ("batch", 3, "height", "width")
    ranges = found["onnx-int8"].reduction
    assert ranges is not None and len(ranges.quantised) == 4
    images = np.random.default_rng(0).standard_normal((1, 3, 42, 70), np.float32)
    with vconv.load(out, variant="onnx-fp32") as wide, vconv.load(out, variant="onnx-int8") as whole:
        expected, actual = wide(images), whole(images)
    for name, value in expected.items():
        error = np.linalg.norm(actual[name] - value) / np.linalg.norm(value)
        assert 1e-5 < error < 0.1, name
    assert vconv.validate(out, **QUICK).status == "passed"


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
