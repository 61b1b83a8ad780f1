from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime

from vconv.convert.graphs.passes.embed_weights import embed_weights
from vconv.types import INPUT


def test_a_graph_with_embedded_weights_needs_no_file_and_computes_the_same_bits(
    small_artifact: Path, size: tuple[int, int], tmp_path: Path
) -> None:
    model = ir.load(small_artifact / "model.onnx")
    assert embed_weights(model.graph)
    assert not embed_weights(model.graph)
    ir.save(model, tmp_path / "alone.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["alone.onnx"]
    alone, beside = (
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for path in (tmp_path / "alone.onnx", small_artifact / "model.onnx")
    )
    images = np.random.default_rng(1).standard_normal((2, 3, *size), np.float32)
    found, expected = (session.run(None, {INPUT: images}) for session in (alone, beside))
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one, other)


def test_only_external_weights_are_read_and_names_types_and_shapes_stay(small_artifact: Path) -> None:
    model = ir.load(small_artifact / "model.npu.onnx")
    before = dict(model.graph.initializers)
    tensors = {name: value.const_value for name, value in before.items()}
    inside = [name for name, tensor in tensors.items() if not isinstance(tensor, ir.ExternalTensor)]
    assert 0 < len(inside) < len(tensors)
    embed_weights(model.graph)
    assert list(model.graph.initializers) == list(tensors)
    for name, tensor in tensors.items():
        now = model.graph.initializers[name].const_value
        assert now is not None and tensor is not None
        assert (now is tensor) == (name in inside)
        assert not isinstance(now, ir.ExternalTensor)
        assert (now.name, now.dtype, now.shape) == (tensor.name, tensor.dtype, tensor.shape)
