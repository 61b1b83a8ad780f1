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


def layer_norm(eps: str = "0.00001", power: str = "2", affine: bool = True, cast: bool = False) -> ir.Model:
    last = {"axes": [-1]}
    steps: list[Step] = [
        ("ReduceMean", ["x"], "mean"),
        ("Sub", ["x", "mean"], "centred"),
        *([("Cast", ["centred"], "wide")] if cast else []),
        ("Pow", ["wide" if cast else "centred", power], "squares"),
        ("ReduceMean", ["squares"], "variance"),
        ("Add", ["variance", eps], "added"),
        ("Sqrt", ["added"], "root"),
        ("Div", ["centred", "root"], "normed"),
        *([("Mul", ["normed", "row"], "scaled"), ("Add", ["scaled", "row_2"], "y")] if affine else []),
    ]
    return graph(*steps, mean=last, variance=last, wide={"to": FLOAT})


def cast_product(operator: str, wide: int = FLOAT, dtype: int = HALF) -> ir.Model:
    second = "grid" if operator == "MatMul" else "x"
    return graph(
        (operator, ["x", second], "product"), ("Cast", ["product"], "y"), dtype=dtype, y={"to": wide}
    )


def added_norm(dtype: int = HALF) -> ir.Model:
    return graph(
        ("Add", ["x", "x"], "summed"),
        ("Cast", ["summed"], "wide"),
        ("LayerNormalization", ["wide", "row"], "y"),
        dtype=dtype,
        wide={"to": FLOAT},
    )


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
    "a float16 sum, cast before the norm": (added_norm, {"AddLayerNormFusionPass": Effect.PRECISION}),
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


@pytest.mark.every_system
@pytest.mark.parametrize("file", ["model.onnx", "model.npu.onnx"])
def test_no_pass_changes_a_result_of_an_artifacts_graph(small_artifact: Path, file: str) -> None:
    assert harmful(ir.load(small_artifact / file)) == {}
