"""Attention over tensors of rank 3: the same values, and no product of rank 4."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional

from vconv.convert.graphs.passes.attention_rank3 import PASS, attention_rank3, attentions, left
from vconv.convert.graphs.passes.base import PassContext, run_passes
from vconv.errors import InputError
from vconv.types import Array

BATCH, HEADS, TOKENS, CHANNELS = 2, 3, 5, 4
NAMES = ("q", "k", "v")


def graph(
    scaling: str = "after", batch: int | str = BATCH, bias: bool = False, axis: int = -1, twice: bool = False
) -> ir.Model:
    """Write attention of queries, keys (turned) and values, scaled by 1/2."""
    scaled = scaling == "after"
    nodes = [
        *([] if scaled else [helper.make_node("Mul", ["q", "half"], ["queries"])]),
        helper.make_node("MatMul", ["q" if scaled else "queries", "k"], ["scores"]),
        *([helper.make_node("Div", ["scores", "two"], ["divided"])] if scaled else []),
        *([helper.make_node("Add", ["divided" if scaled else "scores", "bias"], ["biased"])] if bias else []),
        helper.make_node(
            "Softmax", ["biased" if bias else "divided" if scaled else "scores"], ["weights"], axis=axis
        ),
        helper.make_node("MatMul", ["weights", "v"], ["y"]),
        *([helper.make_node("Neg", ["weights"], ["z"])] if twice else []),
    ]
    shapes = {
        "q": [batch, HEADS, TOKENS, CHANNELS],
        "k": [batch, HEADS, CHANNELS, TOKENS],
        "v": [batch, HEADS, TOKENS, CHANNELS],
        "y": [batch, HEADS, TOKENS, CHANNELS],
        "z": [batch, HEADS, TOKENS, TOKENS],
    }
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, one) for name, one in shapes.items()
    }
    constants = {"half": np.float32(0.5), "two": np.float32(2), "bias": np.ones((TOKENS, TOKENS), np.float32)}
    read = {name for node in nodes for name in node.input}
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [values[name] for name in NAMES],
            [values["y"], *([values["z"]] if twice else [])],
            [
                numpy_helper.from_array(np.asarray(one), name)
                for name, one in constants.items()
                if name in read
            ],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.checker.check_model(model, full_check=True)
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


def inputs(batch: int = BATCH) -> dict[str, Array]:
    random = np.random.default_rng(0)
    lengths = {"q": (TOKENS, CHANNELS), "k": (CHANNELS, TOKENS), "v": (TOKENS, CHANNELS)}
    return {
        name: random.normal(size=(batch, HEADS, *one)).astype(np.float32) for name, one in lengths.items()
    }


def run(model: ir.Model, given: dict[str, Array]) -> Any:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return onnxruntime.InferenceSession(proto.SerializeToString()).run(None, given)[0]


@pytest.mark.parametrize("scaling", ["before", "after"])
@pytest.mark.parametrize("batch", [BATCH, "batch"], ids=["fixed", "dynamic"])
def test_the_values_are_those_of_torch_and_every_product_has_rank_3(scaling: str, batch: int | str) -> None:
    model = graph(scaling, batch)
    run_passes(model, [PASS], PassContext())
    given = inputs()
    q, k, v = (torch.from_numpy(given[name]) for name in NAMES)
    expected = functional.scaled_dot_product_attention(q, k.transpose(2, 3), v, scale=0.5)
    np.testing.assert_allclose(run(model, given), expected.numpy(), rtol=0, atol=1e-6)
    found = onnx.shape_inference.infer_shapes(ir.to_proto(model), data_prop=True)
    ranks = {one.name: len(one.type.tensor_type.shape.dim) for one in found.graph.value_info}
    products = [node for node in found.graph.node if node.op_type in ("MatMul", "Softmax")]
    assert {ranks[node.output[0]] for node in products} == {3}
    assert (left(model.graph), attentions(model.graph)) == (0, [])


def test_a_second_run_changes_nothing() -> None:
    model = graph()
    assert (attention_rank3(model.graph), attention_rank3(model.graph)) == (1, 0)


@pytest.mark.parametrize("other", [{"bias": True}, {"twice": True}, {"axis": -2}], ids=str)
def test_an_attention_of_another_form_stays(other: dict[str, Any]) -> None:
    model = graph(**other)
    before = [node.op_type for node in model.graph]
    assert attention_rank3(model.graph) == 0
    assert [node.op_type for node in model.graph] == before


def test_an_attention_that_stays_and_a_network_without_attention_are_refused() -> None:
    with pytest.raises(InputError, match="got 1 attentions of another form"):
        run_passes(graph(bias=True), [PASS], PassContext())
    model = graph()
    softmax = next(node for node in model.graph if node.op_type == "Softmax")
    softmax.op_type = "Relu"
    softmax.attributes.clear()
    with pytest.raises(InputError, match="got no attention"):
        run_passes(model, [PASS], PassContext())
