"""Graphs for an NPU with attention over tensors of rank 3, the whole way."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import onnx
import pytest

import vconv
from vconv.artifact import manifest
from vconv.catalog.systems import SYSTEMS, miniature
from vconv.errors import InputError

Refused = Callable[..., AbstractContextManager[None]]


def ranks(path: Path) -> set[int]:
    """Return the ranks of what the softmaxes of a graph give."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False), data_prop=True)
    shapes = {one.name: len(one.type.tensor_type.shape.dim) for one in model.graph.value_info}
    return {shapes[node.output[0]] for node in model.graph.node if node.op_type == "Softmax"}


@pytest.mark.parametrize(
    "name", ["dinov3-vits16", pytest.param("vit_small_patch14_reg4_dinov2.lvd142m", marks=pytest.mark.full)]
)
def test_an_artifact_passes_and_its_graphs_agree(name: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    vconv.export(miniature(SYSTEMS[name]), "synthetic:1", out, batch=2, attention="rank3")
    assert (ranks(out / "model.npu.onnx"), ranks(out / "model.onnx")) == ({3}, {4})
    records = {one.variant: one.graph for one in manifest.load(out).variants if one.graph}
    assert "attention-rank3" in records["onnx-fp32-npu"].passes
    assert "attention-rank3" not in records["onnx-fp32"].passes
    made = manifest.load(out)
    images = np.random.default_rng(0).standard_normal((2, 3, *made.size), np.float32)
    with vconv.load(out, variant="onnx-fp32-npu") as rank3, vconv.load(out, variant="onnx-fp32") as rank4:
        found, expected = rank3(images), rank4(images)
    for output, value in expected.items():
        np.testing.assert_allclose(found[output], value, rtol=0, atol=1e-5)
    assert vconv.validate(out, quick=True, budget=1e-3).status == "passed"
    assert vconv.bisect(out, "onnx-fp32-npu").passed


def test_a_network_without_attention_is_refused(tmp_path: Path, refused: Refused) -> None:
    system = miniature(SYSTEMS["dinov3-convnext-tiny"])
    said: list[str] = []
    with refused(InputError, "got no attention", "leave --attention out"):
        vconv.export(
            system, "synthetic:1", tmp_path / "out", attention="rank3", golden=False, say=said.append
        )
    assert any(line.startswith("model.npu.onnx: ") for line in said)
    assert not any(line.startswith("model.onnx: ") for line in said), "refused after another graph was made"
    assert not (tmp_path / "out").exists()


def test_another_value_is_refused(tmp_path: Path, refused: Refused) -> None:
    with refused(InputError, "--attention is not known", "rank3 or rank4"):
        vconv.export("dinov3-vits16", "synthetic:1", tmp_path / "out", attention="rank2")
