"""Graphs in float16 and bfloat16, against torch in the same type."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor
from weighted_graphs import computed, graph_of, node, reduced, types

from vconv.convert.files.safetensors_file import read_header
from vconv.convert.graphs.passes.base import PassContext, PassError, run_passes
from vconv.convert.graphs.passes.narrow import PASS, narrow
from vconv.convert.reduced.plan import Plan
from vconv.types import WEIGHTS_FILE, Array

NARROW = {"fp16": ("FLOAT16", torch.float16), "bf16": ("BFLOAT16", torch.bfloat16)}
EACH = pytest.mark.parametrize("precision", NARROW)
RANDOM = np.random.default_rng(1)


def grid(*shape: int) -> Array:
    """Return numbers whose products and sums float32 holds exactly, and no narrow type holds as they are."""
    return (RANDOM.integers(-63, 64, shape) / 16 * (1 + 2.0**-15)).astype(np.float32)


X, W, V, B = grid(3, 4), grid(4, 4), grid(4, 4), grid(4)


def low(value: Array, precision: str) -> Tensor:
    return torch.from_numpy(value).to(NARROW[precision][1])


def product(given: Tensor, weight: Tensor) -> Tensor:
    """Multiply in float32, which is exact here, and round once."""
    return (given.float() @ weight.float()).to(given.dtype)


def wide(value: Tensor) -> Array:
    return np.asarray(value.float().numpy())


CHAIN = [
    node("MatMul", "x w", "product"),
    node("Add", "product b", "sum"),
    node("Relu", "sum", "positive"),
    node("MatMul", "positive v", "y"),
]


@EACH
def test_every_node_computes_in_the_narrow_type_between_casts_at_both_ends(
    tmp_path: Path, precision: str
) -> None:
    made = reduced(tmp_path, graph_of(tmp_path, CHAIN, {"w": W, "v": V, "b": B}), Plan(precision))
    name, _ = NARROW[precision]
    inner = product(low(X, precision), low(W, precision)) + low(B, precision)
    expected = wide(product(inner.relu(), low(V, precision)))
    actual = computed(tmp_path / precision / "model.onnx", X)
    assert actual["y"].dtype == np.float32
    np.testing.assert_array_equal(actual["y"], expected)
    assert (actual["y"] != np.maximum(X @ W + B, 0) @ V).any()
    kinds = types(made)
    assert {kinds[one] for one in ("PRODUCT", "SUM", "POSITIVE", "Y")} == {name}
    assert [one.op_type for one in made.graph].count("Cast") == 2
    stored = {entry.dtype for entry in read_header(tmp_path / precision / WEIGHTS_FILE).values()}
    assert stored == {{"fp16": "F16", "bf16": "BF16"}[precision]}
    assert [(one.name, one.dtype) for one in (*made.graph.inputs, *made.graph.outputs)] == [
        ("x", ir.DataType.FLOAT),
        ("y", ir.DataType.FLOAT),
    ]


@EACH
def test_nodes_that_a_plan_keeps_compute_in_float32_with_one_cast_of_each_value(
    tmp_path: Path, precision: str
) -> None:
    nodes = [
        node("MatMul", "x w", "product"),
        node("Sigmoid", "product", "gate"),
        node("Mul", "product gate", "gated"),
        node("MatMul", "gated v", "y"),
    ]
    plan = Plan(precision, frozenset({"GATE", "GATED"}))
    made = reduced(tmp_path, graph_of(tmp_path, nodes, {"w": W, "v": V}), plan)
    inner = product(low(X, precision), low(W, precision))
    gated = inner.float() * inner.float().sigmoid()
    expected = wide(product(gated.to(inner.dtype), low(V, precision)))
    actual = computed(tmp_path / precision / "model.onnx", X)["y"]
    step = {"fp16": 2.0**-10, "bf16": 2.0**-7}[precision]  # a sigmoid may differ in its last bit
    np.testing.assert_allclose(actual, expected, rtol=step, atol=step * np.abs(expected).max())
    kinds = types(made)
    assert (kinds["GATE"], kinds["GATED"]) == ("FLOAT", "FLOAT")
    assert (kinds["PRODUCT"], kinds["Y"]) == (NARROW[precision][0],) * 2
    casts = [one.inputs[0].name for one in made.graph if one.op_type == "Cast" and one.inputs[0]]
    assert sorted(casts) == ["gated", "product", "x", f"y_{'float16' if precision == 'fp16' else 'bfloat16'}"]


def test_a_weight_that_a_kept_node_reads_stays_in_float32_and_is_cast_for_another(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x w", "kept"), node("MatMul", "kept w", "y")]
    made = reduced(tmp_path, graph_of(tmp_path, nodes, {"w": W}), Plan("fp16", frozenset({"KEPT"})))
    expected = wide(product(torch.from_numpy(X @ W).half(), low(W, "fp16")))
    np.testing.assert_array_equal(computed(tmp_path / "fp16" / "model.onnx", X)["y"], expected)
    assert read_header(tmp_path / "fp16" / WEIGHTS_FILE)["w"].dtype == "F32"
    assert types(made) | {"w_float16": "FLOAT16", "KEPT": "FLOAT"} == types(made)


def test_what_only_moves_data_takes_the_type_of_what_it_moves(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", "x w", "low"),
        node("Transpose", "low", "turned", perm=[1, 0]),
        node("Softplus", "low", "wide"),
        node("Transpose", "wide", "wide_turned", perm=[1, 0]),
        node("Concat", "turned wide_turned", "both", axis=0),
        node("Concat", "turned turned", "twice", axis=0),
        node("Relu", "both", "y"),
        node("Relu", "twice", "z"),
    ]
    plan = Plan("fp16", frozenset({"WIDE"}))
    made = reduced(tmp_path, graph_of(tmp_path, nodes, {"w": W}, "y z"), plan)
    kinds = types(made)
    found = {name: kinds[name] for name in ("TURNED", "WIDE_TURNED", "BOTH", "TWICE", "Y", "Z")}
    assert found == {
        "TURNED": "FLOAT16",
        "WIDE_TURNED": "FLOAT",
        "BOTH": "FLOAT",
        "TWICE": "FLOAT16",
        "Y": "FLOAT16",
        "Z": "FLOAT16",
    }
    turned = product(low(X, "fp16"), low(W, "fp16")).T
    actual = computed(tmp_path / "fp16" / "model.onnx", X)
    np.testing.assert_array_equal(actual["z"], wide(torch.cat([turned, turned]).relu()))
    np.testing.assert_array_equal(actual["y"][:4], wide(turned.relu()))


def test_a_constant_gets_a_copy_in_the_narrow_type_and_stays_for_a_kept_node(tmp_path: Path) -> None:
    third = np.array(1 / 3, np.float32)
    nodes = [
        node("Mul", "x third", "kept"),
        node("Mul", "kept third", "once"),
        node("Mul", "once third", "y"),
    ]
    model = graph_of(tmp_path, nodes, {}, constants={"third": third})
    made = reduced(tmp_path, model, Plan("bf16", frozenset({"KEPT"})))
    narrow_third = torch.tensor(1 / 3).bfloat16()
    expected = wide((torch.from_numpy(X * third)).bfloat16() * narrow_third * narrow_third)
    np.testing.assert_array_equal(computed(tmp_path / "bf16" / "model.onnx", X)["y"], expected)
    held = {name: one.dtype for name, one in made.graph.initializers.items()}
    assert held == {"third": ir.DataType.FLOAT, "third_bfloat16": ir.DataType.BFLOAT16}


@EACH
def test_an_output_stays_in_float32_under_its_name_and_is_read_inside_as_it_was(
    tmp_path: Path, precision: str
) -> None:
    nodes = [node("MatMul", "x w", "inner"), node("MatMul", "inner v", "y"), node("Identity", "y", "same")]
    made = reduced(tmp_path, graph_of(tmp_path, nodes, {"w": W, "v": V}, "inner y same"), Plan(precision))
    inner = product(low(X, precision), low(W, precision))
    last = wide(product(inner, low(V, precision)))
    actual = computed(tmp_path / precision / "model.onnx", X)
    assert list(actual) == ["inner", "y", "same"]
    for name, expected in {"inner": wide(inner), "y": last, "same": last}.items():
        assert actual[name].dtype == np.float32
        np.testing.assert_array_equal(actual[name], expected)
    assert {one.dtype for one in made.graph.outputs} == {ir.DataType.FLOAT}


def test_an_output_that_a_kept_node_gives_needs_no_cast(tmp_path: Path) -> None:
    made = reduced(
        tmp_path, graph_of(tmp_path, CHAIN, {"w": W, "v": V, "b": B}), Plan("fp16", frozenset({"Y"}))
    )
    (output,) = made.graph.outputs
    producer = output.producer()
    assert producer is not None and (producer.name, producer.op_type) == ("Y", "MatMul")


@pytest.mark.parametrize("stored", ["F16", "BF16"])
@EACH
def test_a_weight_that_is_stored_narrow_and_cast_already_is_rounded_once(
    tmp_path: Path, stored: str, precision: str
) -> None:
    """An artifact keeps the type of its weights with --keep-dtype; its graph casts them to float32."""
    nodes = [node("Cast", "w", "cast", to=1), node("MatMul", "x cast", "y")]
    made = reduced(tmp_path, graph_of(tmp_path, nodes, {"w": W}, stored=stored), Plan(precision))
    before = torch.from_numpy(W).to({"F16": torch.float16, "BF16": torch.bfloat16}[stored])
    expected = wide(product(low(X, precision), before.to(NARROW[precision][1])))
    np.testing.assert_array_equal(computed(tmp_path / precision / "model.onnx", X)["y"], expected)
    assert types(made)["CAST"] == "FLOAT" and types(made)["Y"] == NARROW[precision][0]


def test_a_cast_between_other_types_stays_as_it_is(tmp_path: Path) -> None:
    nodes = [
        node("ArgMax", "x", "place", axis=1),
        node("Cast", "place", "number", to=1),
        node("Mul", "number number", "y"),
    ]
    made = reduced(tmp_path, graph_of(tmp_path, nodes, {}), Plan("fp16"))
    expected = np.square(X.astype(np.float16).argmax(axis=1, keepdims=True)).astype(np.float32)
    np.testing.assert_array_equal(computed(tmp_path / "fp16" / "model.onnx", X)["y"], expected)
    assert (types(made)["PLACE"], types(made)["NUMBER"]) == ("INT64", "FLOAT")


def test_what_does_not_depend_on_the_images_is_computed_in_float32_and_rounded_once(tmp_path: Path) -> None:
    nodes = [node("Mul", "w w", "square"), node("Exp", "square", "table"), node("Add", "x table", "y")]
    weight = np.float32([0.1, 1.3, 2.7, 3.3])
    made = reduced(tmp_path, graph_of(tmp_path, nodes, {"w": weight}), Plan("fp16"))
    expected = wide(low(X, "fp16") + torch.from_numpy(np.exp(weight * weight)).half())
    actual = computed(tmp_path / "fp16" / "model.onnx", X)["y"]
    np.testing.assert_array_equal(actual, expected)
    assert np.isinf(actual).sum() == 0 and (types(made)["SQUARE"], types(made)["TABLE"]) == ("FLOAT",) * 2


SPELLED_OUT = [
    node("MatMul", "x w", "product"),
    node("Add", "product b", "sum"),
    node("ReduceMean", "sum", "mean", axes=[-1]),
    node("Sub", "sum mean", "centred"),
    node("Pow", "centred two", "square"),
    node("ReduceMean", "square", "variance", axes=[-1]),
    node("Add", "variance small", "added"),
    node("Sqrt", "added", "root"),
    node("Div", "centred root", "divided"),
    node("Mul", "divided scale", "scaled"),
    node("Add", "scaled b", "shifted"),
    node("MatMul", "shifted v", "y"),
]


@EACH
def test_a_layer_norm_that_is_spelled_out_and_the_sum_before_it_stay_in_float32(
    tmp_path: Path, precision: str
) -> None:
    """Its square overflows in float16; CANN would fuse a sum in float16 with the norm."""
    constants = {"two": np.float32(2), "small": np.float32(1e-6)}
    great = 512 * W
    weights = {"w": great, "v": V, "b": B, "scale": np.abs(B) + 1}
    model = graph_of(tmp_path, SPELLED_OUT, weights, constants=constants, opset=13)
    made = reduced(tmp_path, model, Plan(precision))
    inner = product(low(X, precision), low(great, precision)).float() + torch.from_numpy(B)
    normed = torch.nn.functional.layer_norm(inner, (4,), eps=1e-6)
    dtype = NARROW[precision][1]
    last = normed.to(dtype) * torch.from_numpy(weights["scale"]).to(dtype) + low(B, precision)
    expected = wide(product(last, low(V, precision)))
    actual = computed(tmp_path / precision / "model.onnx", X)["y"]
    step = {"fp16": 2.0**-9, "bf16": 2.0**-6}[precision]
    np.testing.assert_allclose(actual, expected, rtol=0, atol=step * np.abs(expected).max())
    kinds = types(made)
    assert {kinds[name] for name in ("SUM", "MEAN", "CENTRED", "SQUARE", "VARIANCE", "ADDED", "ROOT")} == {
        "FLOAT"
    }
    assert {kinds[name] for name in ("PRODUCT", "SCALED", "SHIFTED", "Y")} == {NARROW[precision][0]}


@pytest.mark.parametrize(
    ("opset", "precision", "kind"),
    [
        (17, "bf16", "FLOAT"),
        (18, "bf16", "FLOAT"),
        (22, "bf16", "BFLOAT16"),
        (17, "fp16", "FLOAT16"),
        (22, "fp16", "FLOAT16"),
    ],
)
def test_a_convolution_stays_in_float32_where_its_opset_has_no_form_in_the_type(
    tmp_path: Path, opset: int, precision: str, kind: str
) -> None:
    images, kernels = grid(2, 3, 4, 4), grid(5, 3, 2, 2)
    nodes = [node("Conv", "x k", "patches", strides=[2, 2]), node("Relu", "patches", "y")]
    model = graph_of(tmp_path, nodes, {"k": kernels}, shape=("n", 3, 4, 4), opset=opset)
    made = reduced(tmp_path, model, Plan(precision))
    assert (types(made)["PATCHES"], types(made)["Y"]) == (kind, NARROW[precision][0])
    both = [torch.from_numpy(one) for one in (images, kernels)]
    if kind != "FLOAT":
        both = [one.to(NARROW[precision][1]).float() for one in both]
    exact = torch.nn.functional.conv2d(*both, stride=2)
    expected = wide(exact.to(NARROW[precision][1]).relu())
    stored = read_header(tmp_path / precision / WEIGHTS_FILE)["k"].dtype
    assert stored == ("F32" if kind == "FLOAT" else {"fp16": "F16", "bf16": "BF16"}[precision])
    if (opset, precision) != (22, "bf16"):  # ONNX's reference has no convolution of bfloat16
        actual = computed(tmp_path / precision / "model.onnx", images)["y"]
        step = {"fp16": 2.0**-10, "bf16": 2.0**-7}[precision]
        np.testing.assert_allclose(actual, expected, rtol=step, atol=step)


NEAREST = {
    "mode": "nearest",
    "nearest_mode": "floor",
    "coordinate_transformation_mode": "asymmetric",
}


def test_an_operator_that_takes_some_of_its_inputs_in_float32_alone_stays_in_float32(tmp_path: Path) -> None:
    """The factors of a Resize are float32 in every opset."""
    images = grid(1, 1, 2, 3)
    nodes = [
        node("Relu", "x", "low"),
        node("Resize", "low none factors", "great", **NEAREST),
        node("Neg", "great", "y"),
    ]
    nodes[1].input[1] = ""
    constants = {"factors": np.float32([1, 1, 2, 2])}
    model = graph_of(tmp_path, nodes, {}, constants=constants, shape=(1, 1, 2, 3))
    made = reduced(tmp_path, model, Plan("fp16"))
    doubled = np.maximum(images, 0).repeat(2, axis=2).repeat(2, axis=3)
    actual = computed(tmp_path / "fp16" / "model.onnx", images)["y"]
    np.testing.assert_array_equal(actual, -doubled.astype(np.float16).astype(np.float32))
    assert types(made)["LOW"] == "FLOAT16"


def test_rows_of_one_weight_are_narrowed_together(tmp_path: Path) -> None:
    fused = grid(6, 4)
    nodes = [
        node("Split", "w lengths", "q k", axis=0),
        node("Transpose", "q", "qt", perm=[1, 0]),
        node("Transpose", "k", "kt", perm=[1, 0]),
        node("MatMul", "x qt", "y"),
        node("MatMul", "x kt", "z"),
    ]
    constants = {"lengths": np.array([2, 4])}
    made = reduced(tmp_path, graph_of(tmp_path, nodes, {"w": fused}, "y z", constants), Plan("fp16"))
    both = wide(product(low(X, "fp16"), low(fused, "fp16").T))
    actual = computed(tmp_path / "fp16" / "model.onnx", X)
    np.testing.assert_array_equal(np.concatenate([actual["y"], actual["z"]], axis=1), both)
    assert set(types(made).values()) == {"FLOAT16", "FLOAT"}


def test_a_graph_in_which_nothing_computes_is_left_as_it_is(tmp_path: Path) -> None:
    model = graph_of(tmp_path, [node("Transpose", "x", "y", perm=[1, 0])], {})
    (result,) = run_passes(model, [PASS], PassContext(plan=Plan("fp16")))
    assert not result.modified
    assert not narrow(model, ir.DataType.FLOAT16, ())


def test_a_value_without_a_type_is_an_error(tmp_path: Path) -> None:
    model = graph_of(tmp_path, CHAIN, {"w": W, "v": V, "b": B})
    next(one for one in model.graph if one.name == "SUM").outputs[0].type = None
    with pytest.raises(PassError, match="narrow requires 'every value has a type', but sum has no type"):
        run_passes(model, [PASS], PassContext(plan=Plan("fp16")))
