from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from vconv.convert.files.safetensors_file import TensorEntry, read_header
from vconv.convert.graphs.passes.point_at_weights import forget_weights, point_at_weights

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)
OTHER = np.full((4,), 7, np.float32)


@pytest.fixture
def entries(tmp_path: Path) -> dict[str, TensorEntry]:
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({"disk.weight": WEIGHT, "another": OTHER}, path)
    return read_header(path)


def stored_key(name: str) -> str:
    return name.replace("memory.", "disk.")


def graph_of(*dims: int | str, dtype: ir.DataType = ir.DataType.FLOAT) -> ir.Graph:
    """Add the weight ``memory.weight``, which has no data, and the constant ``one`` to ``x``."""
    kind = ir.TensorType(dtype)
    given, inner, made = (ir.Value(name=name, shape=ir.Shape([2, 3]), type=kind) for name in ("x", "i", "y"))
    weight = ir.Value(name="memory.weight", shape=ir.Shape(dims), type=kind)
    one = ir.Value(name="one", shape=ir.Shape([1]), type=kind, const_value=ir.tensor([1.0], name="one"))
    nodes = [
        ir.Node("", "Add", [given, weight], outputs=[inner]),
        ir.Node("", "Add", [inner, one], outputs=[made]),
    ]
    return ir.Graph(
        [given], [made], nodes=nodes, initializers=[weight, one], opset_imports={"": 18}, name="g"
    )


def test_a_weight_becomes_external_under_the_files_name(entries: dict[str, TensorEntry]) -> None:
    graph = graph_of(2, 3)
    point_at_weights(graph, entries, stored_key)
    assert set(graph.initializers) == {"disk.weight", "one"}
    tensor = graph.initializers["disk.weight"].const_value
    assert isinstance(tensor, ir.ExternalTensor)
    entry = entries["disk.weight"]
    assert (tensor.location, tensor.offset, tensor.length) == (
        "model.safetensors",
        entry.offset,
        entry.nbytes,
    )
    assert (tensor.dtype, tuple(tensor.shape)) == (ir.DataType.FLOAT, (2, 3))
    np.testing.assert_array_equal(tensor.numpy(), WEIGHT)


def test_onnxruntime_reads_the_weight_from_the_file(entries: dict[str, TensorEntry], tmp_path: Path) -> None:
    graph = graph_of(2, 3)
    point_at_weights(graph, entries, stored_key)
    ir.save(ir.Model(graph, ir_version=8), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (found,) = session.run(None, {"x": np.full((2, 3), 10, np.float32)})
    np.testing.assert_array_equal(found, WEIGHT + 11)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.safetensors"]


def test_a_weight_that_is_not_in_the_file_is_an_error(entries: dict[str, TensorEntry]) -> None:
    del entries["disk.weight"]
    with pytest.raises(ValueError, match=r"weight memory\.weight is not in the weights file as disk\.weight"):
        point_at_weights(graph_of(2, 3), entries, stored_key)


@pytest.mark.parametrize("dims", [(3, 2), (6,), (2, 3, 1)])
def test_a_weight_of_another_shape_is_an_error(
    entries: dict[str, TensorEntry], dims: tuple[int | str, ...]
) -> None:
    with pytest.raises(ValueError, match=r"weight memory\.weight is .* disk\.weight in the file is \(2, 3\)"):
        point_at_weights(graph_of(*dims), entries, stored_key)


def test_a_weight_of_another_type_is_an_error(entries: dict[str, TensorEntry]) -> None:
    with pytest.raises(ValueError, match=r"memory\.weight"):
        point_at_weights(graph_of(2, 3, dtype=ir.DataType.FLOAT16), entries, stored_key)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_narrow_weight_is_cast_before_it_is_used(dtype: torch.dtype, tmp_path: Path) -> None:
    weight = torch.tensor([[0.1, 0.2, 0.3], [1.5, -2.0, 3.25]]).to(dtype)
    safetensors.torch.save_file({"disk.weight": weight}, tmp_path / "model.safetensors")
    graph = graph_of(2, 3)
    point_at_weights(graph, read_header(tmp_path / "model.safetensors"), stored_key)
    assert [node.op_type for node in graph] == ["Cast", "Add", "Add"]
    ir.save(ir.Model(graph, ir_version=8), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (found,) = session.run(None, {"x": np.full((2, 3), 10, np.float32)})
    np.testing.assert_array_equal(found, (weight.float() + 10 + 1).numpy())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_that_are_rows_of_one_tensor_become_that_tensor(dtype: torch.dtype, tmp_path: Path) -> None:
    weight = torch.arange(15).reshape(5, 3).to(dtype)
    safetensors.torch.save_file({"disk.weight": weight}, tmp_path / "model.safetensors")
    kind = ir.TensorType(ir.DataType.FLOAT)
    weights = [ir.Value(name=f"memory.{n}", shape=ir.Shape([n, 3]), type=kind) for n in (3, 2)]
    made = [ir.Value(name=f"made{n}", shape=ir.Shape([n, 3]), type=kind) for n in (3, 2)]
    given = ir.Value(name="x", shape=ir.Shape([1, 3]), type=kind)
    nodes = [
        ir.Node("", "Add", [given, *pair[:1]], outputs=[pair[1]]) for pair in zip(weights, made, strict=True)
    ]
    graph = ir.Graph([given], made, nodes=nodes, initializers=weights, opset_imports={"": 18}, name="g")
    entries = read_header(tmp_path / "model.safetensors")
    point_at_weights(graph, entries, lambda name: "disk.weight", [{"memory.2": 2, "memory.3": 3}])
    references = [v.name for v in graph.initializers.values() if isinstance(v.const_value, ir.ExternalTensor)]
    assert references == ["disk.weight"]
    ir.save(ir.Model(graph, ir_version=8), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    three, two = session.run(None, {"x": np.ones((1, 3), np.float32)})
    np.testing.assert_array_equal(two, weight.float()[:2] + 1)
    np.testing.assert_array_equal(three, weight.float()[2:] + 1)


def test_a_weight_without_a_shape_is_an_error(entries: dict[str, TensorEntry]) -> None:
    graph = graph_of(2, 3)
    graph.initializers["memory.weight"].shape = None
    with pytest.raises(ValueError, match=r"weight memory\.weight is None"):
        point_at_weights(graph, entries, stored_key)


def test_a_constant_with_data_is_left_as_it_is(entries: dict[str, TensorEntry]) -> None:
    graph = graph_of(2, 3)
    before = graph.initializers["one"].const_value
    point_at_weights(graph, entries, lambda name: name if name == "one" else stored_key(name))
    assert graph.initializers["one"].const_value is before


def test_forgetting_weights_removes_their_data_and_no_other_data() -> None:
    graph = graph_of(2, 3)
    graph.initializers["memory.weight"].const_value = ir.tensor(WEIGHT, name="memory.weight")
    forget_weights(graph, lambda name: name.startswith("memory."))
    assert graph.initializers["memory.weight"].const_value is None
    assert graph.initializers["one"].const_value is not None
