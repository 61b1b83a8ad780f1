"""Where every other pass of CANN would fire, and where it would not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from vconv.convert.ascend.fusions.base import Effect
from vconv.convert.ascend.fusions.table import FUSIONS, firing, harmful

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
ROW = np.ones(4, np.float32)
Step = tuple[str, list[str], str]


def graph(*steps: Step, dtype: int = FLOAT, named: str = "", **attributes: dict[str, int]) -> ir.Model:
    """Write a graph of steps (operator, inputs, output); an input of digits is a number, ``row`` a weight."""
    constants: dict[str, onnx.TensorProto] = {}
    of = {FLOAT: np.float32, HALF: np.float16}[dtype]
    for name in {name for _, inputs, _ in steps for name in inputs}:
        if name[0].isdigit():
            constants[name] = numpy_helper.from_array(np.array(float(name), of), name)
        elif name.startswith("row"):
            constants[name] = numpy_helper.from_array(ROW.astype(of), name)
        elif name.startswith("grid"):
            constants[name] = numpy_helper.from_array(np.ones((4, 4), of), name)
        elif name.startswith("sizes"):
            constants[name] = numpy_helper.from_array(np.array([2, -1], np.int64), name)
    nodes = [
        helper.make_node(kind, inputs, [out], named + out, **attributes.get(out, {}))
        for kind, inputs, out in steps
    ]
    x = helper.make_tensor_value_info("x", dtype, [2, 4, 4])
    y = helper.make_tensor_value_info(steps[-1][2], TensorProto.UNDEFINED, None)
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], list(constants.values())),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


def layer_norm(
    eps: str = "0.00001",
    power: str = "2",
    affine: bool = True,
    cast: bool = False,
    product: bool = False,
    eps_first: bool = False,
    summed: bool = False,
    dtype: int = FLOAT,
) -> ir.Model:
    """Spell a LayerNorm out.

    Args:
        eps: what is added to the variance.
        power: the exponent of the square.
        affine: whether it has a scale and a bias.
        cast: whether a cast stands before the square.
        product: whether the square is a product.
        eps_first: whether epsilon is the first input of its sum.
        summed: whether the sum of two float16 values, cast to float32, is normalised.
        dtype: of what is normalised, without such a sum.
    """
    last, x = {"axes": [-1]}, "widened" if summed else "x"
    before: list[Step] = [
        ("Cast", ["x"], "narrow"),
        ("Add", ["narrow", "narrow"], "sum"),
        ("Cast", ["sum"], "widened"),
    ]
    squared = "wide" if cast else "centred"
    steps: list[Step] = [
        *(before if summed else []),
        ("ReduceMean", [x], "mean"),
        ("Sub", [x, "mean"], "centred"),
        *([("Cast", ["centred"], "wide")] if cast else []),
        ("Mul", [squared] * 2, "squares") if product else ("Pow", [squared, power], "squares"),
        ("ReduceMean", ["squares"], "variance"),
        ("Add", [eps, "variance"] if eps_first else ["variance", eps], "added"),
        ("Sqrt", ["added"], "root"),
        ("Div", ["centred", "root"], "normed"),
        *([("Mul", ["normed", "row"], "scaled"), ("Add", ["scaled", "row_2"], "y")] if affine else []),
    ]
    casts = {"wide": {"to": dtype}, "narrow": {"to": HALF}, "widened": {"to": FLOAT}}
    return graph(*steps, dtype=dtype, mean=last, variance=last, **casts)


def cast_product(operator: str, wide: int = FLOAT, dtype: int = HALF) -> ir.Model:
    second = "grid" if operator == "MatMul" else "x"
    return graph(
        (operator, ["x", second], "product"), ("Cast", ["product"], "y"), dtype=dtype, y={"to": wide}
    )


def added_norm(dtype: int = HALF, types: bool = True) -> ir.Model:
    model = graph(
        ("Add", ["x", "x"], "summed"),
        ("Cast", ["summed"], "wide"),
        ("LayerNormalization", ["wide", "row"], "y"),
        dtype=dtype,
        wide={"to": FLOAT},
    )
    return model if types else without_types(model)


def without_types(model: ir.Model) -> ir.Model:
    """Return a graph that declares the types of its inputs and outputs alone."""
    proto = ir.to_proto(model)
    del proto.graph.value_info[:]
    return ir.from_proto(proto)


def windows(bias: bool = True) -> ir.Model:
    return graph(
        ("Mul", ["x", "0.25"], "queries"),
        ("MatMul", ["queries", "x"], "scores"),
        *([("Add", ["scores", "grid"], "biased")] if bias else []),
        ("Softmax", ["biased" if bias else "scores"], "weights"),
        ("MatMul", ["weights", "x"], "mixed"),
        ("Transpose", ["mixed"], "turned"),
        ("Reshape", ["turned", "sizes"], "y"),
    )


GRAPHS: dict[str, tuple[Callable[[], ir.Model], dict[str, Effect]]] = {
    "a LayerNorm in steps": (layer_norm, {"LayerNormONNXFusionPass": Effect.ROUNDING}),
    "one with a cast": (lambda: layer_norm(cast=True), {"LayerNormONNXFusionPass": Effect.ROUNDING}),
    "one without weights": (lambda: layer_norm(affine=False), {"LayerNormONNXFusionPass": Effect.ROUNDING}),
    "one with a great epsilon": (lambda: layer_norm(eps="0.2"), {}),
    "one with another power": (lambda: layer_norm(power="3"), {}),
    "one with a product in place of the power": (lambda: layer_norm(product=True), {}),
    "one with epsilon first": (
        lambda: layer_norm(eps_first=True),
        {"LayerNormONNXFusionPass": Effect.ROUNDING},
    ),
    "one of float16 with weights": (
        lambda: layer_norm(dtype=HALF),
        {"LayerNormONNXFusionPass": Effect.ROUNDING},
    ),
    "one of float16 without weights": (
        lambda: layer_norm(dtype=HALF, affine=False),
        {"LayerNormONNXFusionPass": Effect.RESULT},
    ),
    "one of float16 without weights or types": (
        lambda: without_types(layer_norm(dtype=HALF, affine=False)),
        {"LayerNormONNXFusionPass": Effect.RESULT},
    ),
    "a float16 sum, cast before the norm in steps": (
        lambda: layer_norm(summed=True),
        {"LayerNormONNXFusionPass": Effect.ROUNDING, "AddLayerNormFusionPass": Effect.PRECISION},
    ),
    "a float16 sum, cast before a norm in steps that is not fused": (
        lambda: layer_norm(summed=True, product=True),
        {},
    ),
    "a float16 sum, cast before the norm": (added_norm, {"AddLayerNormFusionPass": Effect.PRECISION}),
    "the same in a graph without types": (
        lambda: added_norm(types=False),
        {"AddLayerNormFusionPass": Effect.PRECISION},
    ),
    "a float32 sum before the norm": (lambda: added_norm(FLOAT), {}),
    "a product and its bias": (
        lambda: graph(("MatMul", ["x", "grid"], "product"), ("Add", ["product", "row"], "y")),
        {"MatMulBiasAddFusionPass": Effect.ROUNDING},
    ),
    "a product and another tensor": (
        lambda: graph(("MatMul", ["x", "grid"], "product"), ("Add", ["product", "x"], "y")),
        {},
    ),
    "a float16 product, cast": (
        lambda: cast_product("MatMul"),
        {"MatmulCastFusionPass": Effect.ROUNDING},
    ),
    "a float16 product, cast to float64": (lambda: cast_product("MatMul", TensorProto.DOUBLE), {}),
    "a float32 product, cast": (lambda: cast_product("MatMul", dtype=FLOAT), {}),
    "a float16 convolution, cast": (
        lambda: cast_product("Conv"),
        {"ConvCastFusionPass": Effect.ROUNDING},
    ),
    "a convolution and its normalisation": (
        lambda: graph(
            ("Conv", ["x", "x"], "product"),
            ("BatchNormalization", ["product", "row", "row_2", "row_3", "row_4"], "y"),
        ),
        {"ConvBatchnormFusionPass": Effect.ROUNDING},
    ),
    "a division by a number": (
        lambda: graph(("Div", ["x", "8"], "y")),
        {"RealDiv2MulsFusionPass": Effect.ROUNDING},
    ),
    "a division of a number": (lambda: graph(("Div", ["8", "x"], "y")), {}),
    "a division by a float16 number": (lambda: graph(("Div", ["x", "8"], "y"), dtype=HALF), {}),
    "a division by nearly zero": (lambda: graph(("Div", ["x", "0.0000001"], "y")), {}),
    "a product and a sum": (
        lambda: graph(("Mul", ["x", "row"], "scaled"), ("Add", ["scaled", "x"], "y")),
        {},
    ),
    "the same in a model whose names have bert": (
        lambda: graph(("Mul", ["x", "row"], "scaled"), ("Add", ["scaled", "x"], "y"), named="/visual_bert/"),
        {"MulAddFusionPass": Effect.ROUNDING},
    ),
    "attention with a bias": (windows, {"SwinAttentionScoreFusionPass": Effect.ROUNDING}),
    "attention without one": (lambda: windows(bias=False), {}),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_pass_fires_where_it_is_published_to(name: str) -> None:
    make, expected = GRAPHS[name]
    found = firing(make())
    assert {fusion: [match.effect for match in matches] for fusion, matches in found.items()} == {
        fusion: [effect] for fusion, effect in expected.items()
    }
    assert set(harmful(make())) == {fusion for fusion, effect in expected.items() if effect.harmful}
    ends = {match.place.rpartition("/")[2] for matches in found.values() for match in matches}
    assert ends <= {"y", "normed"}


def test_every_pass_is_shown_to_fire_and_says_where_it_was_published() -> None:
    shown = {fusion for _, expected in GRAPHS.values() for fusion in expected}
    assert shown | {"GeluONNXFusionPass", "GeluFusionPass"} == set(FUSIONS)
    for name, fusion in FUSIONS.items():
        assert name == fusion.name
        assert all((fusion.pattern, fusion.conditions, fusion.becomes, fusion.numbers, fusion.chips))
        assert "canndev" in fusion.source or "hiascend.com" in fusion.source


def test_types_are_inferred_in_a_copy() -> None:
    model = without_types(added_norm())
    before = ir.to_proto(model)
    assert firing(model) and ir.to_proto(model) == before


@pytest.mark.every_system
@pytest.mark.parametrize("file", ["model.onnx", "model.npu.onnx"])
def test_no_pass_changes_a_result_of_an_artifacts_graph(small_artifact: Path, file: str) -> None:
    assert harmful(ir.load(small_artifact / file)) == {}
