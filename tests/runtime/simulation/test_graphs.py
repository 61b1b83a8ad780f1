from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch.nn import functional

from vconv.runtime.simulation.arithmetic import EXACT, PROFILES, ROUNDINGS, Arithmetic
from vconv.runtime.simulation.graphs import rewritten
from vconv.types import Array, Arrays

RANDOM = np.random.default_rng(0)
LEFT, RIGHT = (RANDOM.standard_normal(shape, dtype=np.float32) for shape in ((5, 7), (7, 3)))
IMAGES, KERNELS = (RANDOM.standard_normal(shape, dtype=np.float32) for shape in ((1, 3, 8, 8), (4, 3, 4, 4)))


def model(nodes: list[onnx.NodeProto], inputs: Arrays, outputs: list[str]) -> onnx.ModelProto:
    given = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape) for name, array in inputs.items()
    ]
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(nodes, "g", given, made)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def run(given: onnx.ModelProto, feeds: Arrays) -> list[Array]:
    """Run a graph in ONNX Runtime, fully optimised, as sessions do."""
    session = onnxruntime.InferenceSession(given.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feeds)))


@pytest.mark.parametrize("how", ["hf32", "fp16"])
@pytest.mark.parametrize("kind", ["MatMul", "Gemm"])
def test_a_product_in_a_graph_sees_rounded_operands(kind: str, how: str) -> None:
    feeds = {"left": LEFT, "right": RIGHT}
    given = model([helper.make_node(kind, ["left", "right"], ["y"])], feeds, ["y"])
    new, changed = rewritten(given, Arithmetic(matmul=how))
    left, right = (ROUNDINGS[how](torch.from_numpy(array)).double() for array in (LEFT, RIGHT))
    (actual,) = run(new, feeds)
    assert changed == Counter({"matmul": 1})
    assert np.allclose(actual, (left @ right).numpy(), rtol=0, atol=2e-6)
    assert not np.allclose(run(given, feeds)[0], actual, rtol=0, atol=2e-5), "the rounding must show"


@pytest.mark.parametrize("how", ["hf32", "fp16"])
def test_a_convolution_in_a_graph_sees_rounded_operands_and_its_bias_in_full(how: str) -> None:
    feeds = {"images": IMAGES, "kernels": KERNELS, "bias": np.float32([1.0001, 2, 3, 4])}
    given = model([helper.make_node("Conv", list(feeds), ["y"], strides=[4, 4])], feeds, ["y"])
    new, changed = rewritten(given, Arithmetic(convolution=how))
    images, kernels = (ROUNDINGS[how](torch.from_numpy(array)).double() for array in (IMAGES, KERNELS))
    expected = functional.conv2d(images, kernels, torch.from_numpy(feeds["bias"]).double(), stride=4)
    assert changed == Counter({"convolution": 1})
    assert np.allclose(run(new, feeds)[0], expected.numpy(), rtol=0, atol=5e-6)


@pytest.mark.parametrize("overflow", ["inf", "saturates"])
def test_an_operand_in_a_graph_that_overflows_gives_what_the_torch_operator_gives(overflow: str) -> None:
    left = np.float32([[1e6, -7e4], [np.nan, 3.0]])
    feeds = {"left": left, "right": np.eye(2, dtype=np.float32)}
    arithmetic = Arithmetic(matmul="fp16", overflow=overflow)
    given = model([helper.make_node("MatMul", [*feeds], ["y"])], feeds, ["y"])
    new, changed = rewritten(given, arithmetic)
    (actual,) = run(new, feeds)
    expected = arithmetic.rounding("matmul")(torch.from_numpy(left)) @ torch.eye(2)
    assert changed == Counter({"matmul": 1})
    np.testing.assert_array_equal(actual, expected.numpy())
    if overflow == "saturates":
        np.testing.assert_array_equal(actual, np.float32([[65504, -65504], [0, 3]]))


def test_a_value_that_two_products_take_is_rounded_once() -> None:
    feeds = {"left": LEFT, "right": RIGHT}
    nodes = [
        helper.make_node("MatMul", ["left", "right"], ["a"]),
        helper.make_node("MatMul", ["left", "right"], ["b"]),
    ]
    new, changed = rewritten(model(nodes, feeds, ["a", "b"]), Arithmetic(matmul="fp16"))
    assert changed == Counter({"matmul": 2})
    assert Counter(node.op_type for node in new.graph.node) == {"Cast": 4, "MatMul": 2}


def test_the_operator_gelu_takes_its_tanh_form_and_one_spelled_with_erf_does_not() -> None:
    feeds = {"x": LEFT}
    nodes = [
        helper.make_node("Gelu", ["x"], ["exact"]),
        helper.make_node("Gelu", ["x"], ["already"], approximate="tanh"),
        helper.make_node("Erf", ["x"], ["erf"]),
    ]
    given = model(nodes, feeds, ["exact", "already", "erf"])
    new, changed = rewritten(given, PROFILES["910b"])
    assert changed == Counter({"gelu": 1})
    tanh = functional.gelu(torch.from_numpy(LEFT), approximate="tanh").numpy()
    erf = torch.erf(torch.from_numpy(LEFT)).numpy()
    for actual, expected in zip(run(new, feeds), (tanh, tanh, erf), strict=True):
        assert np.allclose(actual, expected, rtol=0, atol=1e-6)


def test_the_exact_device_changes_no_node_and_no_graph_is_changed_in_place() -> None:
    given = model(
        [helper.make_node("MatMul", ["left", "right"], ["y"])], {"left": LEFT, "right": RIGHT}, ["y"]
    )
    before = given.SerializeToString()
    new, changed = rewritten(given, EXACT)
    assert not changed
    assert list(new.graph.node) == list(given.graph.node)
    rewritten(given, PROFILES["310p"])
    assert given.SerializeToString() == before


def test_an_exported_graph_is_changed_in_every_product_and_convolution_and_in_no_gelu(
    small_artifact: Path,
) -> None:
    given = onnx.load(small_artifact / "model.npu.onnx", load_external_data=False)
    operators = Counter(node.op_type for node in given.graph.node)
    _, changed = rewritten(given, PROFILES["310p"])
    assert changed == Counter({"matmul": operators["MatMul"] + operators["Gemm"], "convolution": 1})
