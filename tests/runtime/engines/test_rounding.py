"""A graph that rounds after each operator, against NumPy and torch in the narrow type."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from vconv.runtime.engines.rounding import rounded
from vconv.types import Array

RANDOM = np.random.default_rng(0)
X: Array = RANDOM.normal(size=(4, 8)).astype(np.float32)
W: Array = RANDOM.normal(size=(8, 8)).astype(np.float32)
TYPES = {
    "fp16": (TensorProto.FLOAT16, torch.float16),
    "bf16": (TensorProto.BFLOAT16, torch.bfloat16),
}


def narrow_tensor(value: Array, name: str, kind: int) -> TensorProto:
    stored = torch.from_numpy(value).to({TensorProto.FLOAT16: torch.float16}.get(kind, torch.bfloat16))
    raw = stored.view(torch.int16).numpy().tobytes()
    return helper.make_tensor(name, kind, value.shape, raw, raw=True)


def model(kind: int, operator: str) -> onnx.ModelProto:
    """Return y = operator(narrow(x), w) in a narrow type, from and to float32."""
    nodes = [
        helper.make_node("Cast", ["x"], ["low"], to=kind),
        helper.make_node(operator, ["low", "w"], ["product"]),
        helper.make_node("Add", ["product", "product"], ["twice"]),
        helper.make_node("Cast", ["twice"], ["y"], to=TensorProto.FLOAT),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 8]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [narrow_tensor(W, "w", kind)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def run(made: onnx.ModelProto) -> Array:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        made.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"x": X})
    return np.asarray(found)


@pytest.mark.parametrize("name", TYPES)
def test_each_result_is_that_of_the_narrow_type(name: str) -> None:
    kind, dtype = TYPES[name]
    low, weight = torch.from_numpy(X).to(dtype), torch.from_numpy(W).to(dtype)
    # Both compute in float32 and round once, so that only the order of the sums may differ.
    product = (low.float() @ weight.float()).to(dtype)
    wanted = (product + product).float().numpy()
    made = rounded(model(kind, "MatMul"))
    found = run(made)
    step = 2.0 ** -(10 if name == "fp16" else 7)
    np.testing.assert_allclose(found, wanted, rtol=step, atol=step)
    assert (found != (X @ W) * 2).any()
    kinds = {output.type.tensor_type.elem_type for output in (*made.graph.input, *made.graph.output)}
    assert kinds == {TensorProto.FLOAT}


def test_an_overflow_of_float16_is_infinite() -> None:
    made = model(TensorProto.FLOAT16, "MatMul")
    made.graph.initializer[0].CopyFrom(narrow_tensor(6e4 * np.eye(8, dtype=np.float32), "w", 10))
    found = run(rounded(made))
    assert np.isinf(found[np.abs(X) > 0.6]).all()
    assert np.isfinite(found[np.abs(X) < 0.5]).all()


def test_the_graph_stays_unchanged() -> None:
    made = model(TensorProto.FLOAT16, "MatMul")
    before = made.SerializeToString()
    rounded(made)
    assert made.SerializeToString() == before
    assert numpy_helper.to_array(made.graph.initializer[0]).dtype == np.float16
