"""Weights that an artifact stores as narrow as they came."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import safetensors.torch
import torch

from vconv.catalog.systems import SYSTEMS, System, miniature
from vconv.convert.libraries import widening
from vconv.convert.sources.base import Source
from vconv.runtime.engines import onnxruntime
from vconv.types import WEIGHTS_FILE, Status
from vconv.workflows.export import export
from vconv.workflows.validate import validate

pytestmark = pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)


@pytest.fixture
def narrow(small_source: Source) -> Path:
    """A folder of weights in bfloat16."""
    path = small_source.folder / WEIGHTS_FILE
    tensors = {name: value.bfloat16() for name, value in safetensors.torch.load_file(path).items()}
    path.unlink()
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    return small_source.folder


def test_an_artifact_keeps_bfloat16_and_its_graphs_compute_in_float32(
    small_system: System, narrow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every engine takes the way that saves memory, which otherwise only large networks need.
    for module in (widening, onnxruntime):
        monkeypatch.setattr(module, "GREATEST_WIDENED", 0)
    made = export(small_system, narrow, tmp_path / "made", keep_dtype=True)
    assert [row["status"] for row in made["variants"]] == ["passed"] * 3
    tensors = safetensors.torch.load_file(tmp_path / "made" / WEIGHTS_FILE)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    for graph in ("model.onnx", "model.npu.onnx"):
        model = onnx.load(tmp_path / "made" / graph, load_external_data=False)
        external = [one.data_type for one in model.graph.initializer if one.external_data]
        assert set(external) == {onnx.TensorProto.BFLOAT16}
    report = validate(tmp_path / "made", narrow, quick=True, engines=["onnxruntime", "openvino"])
    assert report.passed
    rows = {(row.variant, row.engine): row for row in report.variants}
    fused = rows.pop(("fused-torch-fp32", "torch"))
    assert fused.status is Status.SKIPPED and "widened to float32" in fused.reason
    assert {row.status for row in rows.values() if not row.variant.startswith("original")} == {Status.PASSED}


def test_weights_in_another_layout_stay_as_narrow_as_they_came(
    small_system: System, narrow: Path, tmp_path: Path
) -> None:
    timm = miniature(SYSTEMS["vit_small_patch16_dinov3.lvd1689m"])
    made = export(timm, narrow, tmp_path / "made", keep_dtype=True)
    assert [row["status"] for row in made["variants"]] == ["passed"] * 3
    tensors = safetensors.torch.load_file(tmp_path / "made" / WEIGHTS_FILE)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    given = safetensors.torch.load_file(narrow / WEIGHTS_FILE)
    parts = [given[f"layer.1.attention.{name}_proj.weight"] for name in "qkv"]
    assert torch.equal(tensors["blocks.1.attn.qkv.weight"], torch.cat(parts))
