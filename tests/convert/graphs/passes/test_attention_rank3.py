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
    scaling: str = "after",
    batch: int | str = BATCH,
    bias: bool = False,
    axis: int = -1,
    twice: str = "",
    cast: bool = False,
    lengths: dict[str, list[int]] | None = None,
) -> ir.Model:
    """Write attention of queries, keys (turned) and values, scaled by 1/2.

    Args:
        scaling: whether the queries or the scores are scaled.
        batch: the first axis.
        bias: whether the scores have a bias.
        axis: of the softmax.
        twice: the value that an output of the graph reads too.
        cast: whether casts to float64 and back stand around the softmax.
        lengths: the first two axes of inputs that have others than the batch and the heads.
    """
    scaled = scaling == "after"
    ready = "biased" if bias else "divided" if scaled else "scores"
    there, back = ("wide", "narrow") if cast else (ready, "weights")
    nodes = [
        *([] if scaled else [helper.make_node("Mul", ["q", "half"], ["queries"])]),
        helper.make_node("MatMul", ["q" if scaled else "queries", "k"], ["scores"]),
        *([helper.make_node("Div", ["scores", "two"], ["divided"])] if scaled else []),
        *([helper.make_node("Add", ["divided" if scaled else "scores", "bias"], ["biased"])] if bias else []),
        *([helper.make_node("Cast", [ready], ["wide"], to=TensorProto.DOUBLE)] if cast else []),
        helper.make_node("Softmax", [there], ["weights"], axis=axis),
        *([helper.make_node("Cast", ["weights"], ["narrow"], to=TensorProto.FLOAT)] if cast else []),
        helper.make_node("MatMul", [back, "v"], ["y"]),
        *([helper.make_node("Neg", [twice], ["z"])] if twice else []),
    ]
    shapes = {
        "q": [batch, HEADS, TOKENS, CHANNELS],
        "k": [batch, HEADS, CHANNELS, TOKENS],
        "v": [batch, HEADS, TOKENS, CHANNELS],
        "y": [batch, HEADS, TOKENS, CHANNELS],
        "z": [batch, HEADS, TOKENS, TOKENS],
    }
    for name, first in (lengths or {}).items():
        shapes[name][:2] = first
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


def run(model: ir.Model, given: dict[str, Array]) -> list[Any]:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return list(onnxruntime.InferenceSession(proto.SerializeToString()).run(None, given))


def ranks(model: ir.Model) -> set[int]:
    """Return the ranks of what the products and the softmaxes give."""
    found = onnx.shape_inference.infer_shapes(ir.to_proto(model), data_prop=True).graph
    values = {one.name: len(one.type.tensor_type.shape.dim) for one in found.value_info}
    return {values[node.output[0]] for node in found.node if node.op_type in ("MatMul", "Softmax")}


def by_torch(given: dict[str, Array]) -> tuple[Array, Array]:
    """Return the weights and the result of attention."""
    q, k, v = (torch.from_numpy(given[name]) for name in NAMES)
    result = functional.scaled_dot_product_attention(q, k.transpose(2, 3), v, scale=0.5)
    return torch.softmax(q @ k / 2, -1).numpy(), result.numpy()


@pytest.mark.parametrize("scaling", ["before", "after"])
@pytest.mark.parametrize("batch", [BATCH, "batch"], ids=["fixed", "dynamic"])
@pytest.mark.parametrize("cast", [False, True], ids=["float32", "casts"])
def test_the_values_are_those_of_torch_and_every_product_has_rank_3(
    scaling: str, batch: int | str, cast: bool
) -> None:
    model = graph(scaling, batch, cast=cast)
    run_passes(model, [PASS], PassContext())
    given = inputs()
    (found,) = run(model, given)
    np.testing.assert_allclose(found, by_torch(given)[1], rtol=0, atol=1e-6)
    assert ranks(model) == {3}
    assert (left(model), attentions(model)) == ([], [])


@pytest.mark.parametrize("batch", [BATCH, "batch"], ids=["fixed", "dynamic"])
@pytest.mark.parametrize("read", ["weights", "narrow"])
def test_what_else_reads_the_weights_gets_them_in_rank_4(batch: int | str, read: str) -> None:
    model = graph(batch=batch, twice=read, cast=read == "narrow")
    run_passes(model, [PASS], PassContext())
    given = inputs()
    found, negative = run(model, given)
    weights, result = by_torch(given)
    np.testing.assert_allclose(found, result, rtol=0, atol=1e-6)
    np.testing.assert_allclose(negative, -weights, rtol=0, atol=1e-6)
    assert ranks(model) == {3}


def test_weights_that_are_an_output_keep_their_name_and_shape() -> None:
    model = graph(twice="weights")
    (negative,) = (node for node in model.graph if node.op_type == "Neg")
    model.graph.outputs[1] = negative.inputs[0] or model.graph.outputs[1]
    model.graph.remove(negative, safe=False)
    run_passes(model, [PASS], PassContext())
    given = inputs()
    found = run(model, given)
    for value, expected in zip(found, reversed(by_torch(given)), strict=True):
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-6)
    assert [value.name for value in model.graph.outputs] == ["y", "weights"]


def test_a_second_run_changes_nothing() -> None:
    model = graph()
    assert (attention_rank3(model), attention_rank3(model)) == (1, 0)


OTHERS: dict[str, dict[str, Any]] = {
    "a bias": {"bias": True},
    "scores with another reader": {"twice": "scores"},
    "a softmax over another axis": {"axis": -2},
    "queries of one image for all": {"lengths": {"q": [1, HEADS]}},
    "keys of one head for all": {"lengths": {"k": [BATCH, 1]}},
    "values of one image for all": {"lengths": {"v": [1, HEADS]}},
    "values of one head for all": {"lengths": {"v": [BATCH, 1]}},
    "queries of one image for a dynamic batch": {"batch": "batch", "lengths": {"q": [1, HEADS]}},
}


@pytest.mark.parametrize("other", OTHERS)
def test_an_attention_of_another_form_stays_and_is_refused(other: str) -> None:
    model = graph(**OTHERS[other])
    before = [node.op_type for node in model.graph]
    with pytest.raises(InputError, match="got 1 attentions of another form, such as weights"):
        run_passes(model, [PASS], PassContext())
    assert [node.op_type for node in model.graph] == before


def test_an_attention_of_unknown_shapes_is_refused() -> None:
    model = graph()
    for node in model.graph:
        node.outputs[0].shape = None
    with pytest.raises(InputError, match="got 1 attentions of another form"):
        run_passes(model, [PASS], PassContext())


@pytest.mark.parametrize("rank", [2, 5])
def test_attention_of_any_other_rank_is_refused_even_with_steps_between(rank: int) -> None:
    """As in VOLO and CaiT: the weights are a product themselves, or mixed once more."""
    first = ["batch", *[3] * (rank - 2), TOKENS]
    text = f"""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[{",".join(map(str, first))}] x, float[{TOKENS},{TOKENS}] w) => (float[] y)
        {{
            scores = MatMul(x, w)
            moved = Relu(scores)
            weights = Softmax<axis = -1>(moved)
            mixed = Neg(weights)
            y = MatMul(mixed, w)
        }}
    """
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))
    with pytest.raises(InputError, match="got 1 attentions of another form, such as weights"):
        run_passes(model, [PASS], PassContext())


def test_attention_of_rank_3_stays() -> None:
    text = f"""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[batch,{TOKENS},{TOKENS}] x) => (float[batch,{TOKENS},{TOKENS}] y)
        {{
            scores = MatMul(x, x)
            weights = Softmax<axis = -1>(scores)
            y = MatMul(weights, x)
        }}
    """
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))
    (result,) = run_passes(model, [PASS], PassContext())
    assert not result.modified


def test_a_network_without_attention_is_refused() -> None:
    model = graph()
    softmax = next(node for node in model.graph if node.op_type == "Softmax")
    softmax.op_type = "Relu"
    softmax.attributes.clear()
    with pytest.raises(InputError, match="got no attention"):
        run_passes(model, [PASS], PassContext())
