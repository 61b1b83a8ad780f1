"""Graphs with products of 8-bit whole numbers, against the arithmetic by hand in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from weighted_graphs import graph_of, node, reduced

from vconv.convert.files.safetensors_file import read_header
from vconv.convert.graphs.passes.base import PassContext, PassError, run_passes
from vconv.convert.graphs.passes.quantise import PASS
from vconv.convert.reduced.plan import Plan, Quantised, Range
from vconv.types import WEIGHTS_FILE, Array

RANDOM = np.random.default_rng(2)
X = RANDOM.standard_normal((5, 4), np.float32)
W, V = RANDOM.standard_normal((4, 6), np.float32), RANDOM.standard_normal((4, 4), np.float32)
SMOOTHING = np.float32([0.25, 1, 3, 7])
ONE_PRODUCT = [node("MatMul", "x w", "y")]
ALIKE = {"rtol": 0, "atol": 2e-6}
"""Sums of float32 in another order."""


def activation(x: Array, least: float, greatest: float) -> Array:
    """Round values to the 256 steps of a range that has an exact zero."""
    scale = float(np.float32((greatest - least) / 255))
    zero = np.rint(-least / scale)
    return (np.clip(np.rint(x.astype(np.float64) / scale) + zero, 0, 255) - zero) * scale


def weight(w: Array) -> Array:
    """Round a weight (inputs, outputs) to 127 steps on each side of zero, for each output."""
    scale = np.abs(w).max(axis=0) / 127
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    return np.rint(w / scale).astype(np.float64) * scale


def operators(model: ir.Model) -> dict[str, int]:
    found = [one.op_type for one in model.graph]
    return {name: found.count(name) for name in sorted({*found})}


def computed(path: Path, x: Array, fused: bool = False) -> dict[str, Array]:
    """Run a graph node by node, or with quantised products fused into those of whole numbers."""
    options = onnxruntime.SessionOptions()
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if fused else level.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"x": x}), strict=True))


RANGES = {
    "of both signs": (X, -2.5, 3.0),
    "of positive numbers": (np.abs(X), 0.0, 2.75),
    "of negative numbers": (-np.abs(X), -2.75, 0.0),
    "that cuts values off": (X, -0.5, 0.75),
}


@pytest.mark.parametrize("name", RANGES)
def test_a_product_is_that_of_its_rounded_input_and_weight(name: str, tmp_path: Path) -> None:
    x, least, greatest = RANGES[name]
    plan = Plan("int8", quantised={"w": Quantised(Range(least, greatest))})
    made = reduced(tmp_path, graph_of(tmp_path, ONE_PRODUCT, {"w": W}), plan)
    expected = activation(x, least, greatest) @ weight(W)
    actual = computed(tmp_path / "int8" / "model.onnx", x)["y"]
    np.testing.assert_allclose(actual, expected, **ALIKE)
    fused = computed(tmp_path / "int8" / "model.onnx", x, fused=True)["y"]
    np.testing.assert_allclose(fused, expected, rtol=0, atol=2e-5)
    assert np.abs(actual - x @ W).max() > 1e-3
    assert operators(made) == {"DequantizeLinear": 2, "MatMul": 1, "QuantizeLinear": 1}
    zero = made.graph.initializers["x_zero_point"].const_value
    assert zero is not None and zero.numpy() == {0.0: 0}.get(least, {0.0: 255}.get(greatest, zero.numpy()))


def test_zero_is_exact(tmp_path: Path) -> None:
    plan = Plan("int8", quantised={"w": Quantised(Range(-0.3, 1.9))})
    reduced(tmp_path, graph_of(tmp_path, ONE_PRODUCT, {"w": W}), plan)
    zeros = np.zeros((2, 4), np.float32)
    np.testing.assert_array_equal(computed(tmp_path / "int8" / "model.onnx", zeros)["y"], 0)


def test_a_weight_is_stored_in_8_bits_with_one_scale_for_each_output(tmp_path: Path) -> None:
    held = W.copy()
    held[:, 2] = 0
    plan = Plan("int8", quantised={"w": Quantised(Range(-3, 3))})
    reduced(tmp_path, graph_of(tmp_path, ONE_PRODUCT, {"w": held}), plan)
    entries = read_header(tmp_path / "int8" / WEIGHTS_FILE)
    assert {name: (one.dtype, one.shape) for name, one in entries.items()} == {
        "w.int8": ("I8", (4, 6)),
        "w.scale": ("F32", (6,)),
    }
    whole = np.frombuffer(b"".join(entries["w.int8"].chunks()), np.int8).reshape(4, 6)
    scale = np.frombuffer(b"".join(entries["w.scale"].chunks()), np.float32)
    np.testing.assert_allclose(whole * scale.astype(np.float64), weight(held), rtol=0, atol=1e-9)
    np.testing.assert_array_equal(np.abs(whole).max(axis=0), [127, 127, 0, 127, 127, 127])
    assert scale[2] == 1
    np.testing.assert_array_equal(computed(tmp_path / "int8" / "model.onnx", X)["y"][:, 2], 0)


def test_smoothing_divides_each_channel_and_multiplies_each_row(tmp_path: Path) -> None:
    plan = Plan("int8", quantised={"w": Quantised(Range(-3, 3), SMOOTHING)})
    made = reduced(tmp_path, graph_of(tmp_path, ONE_PRODUCT, {"w": W}), plan)
    smooth = X * (1 / SMOOTHING).astype(np.float32)
    expected = activation(smooth, -3, 3) @ weight(W * SMOOTHING[:, None])
    np.testing.assert_allclose(computed(tmp_path / "int8" / "model.onnx", X)["y"], expected, **ALIKE)
    assert operators(made)["Mul"] == 1


@pytest.mark.parametrize("smooths", [False, True], ids=["plain", "smoothed"])
def test_a_value_that_several_products_multiply_is_quantised_once(smooths: bool, tmp_path: Path) -> None:
    nodes = [node("MatMul", "x w", "y"), node("MatMul", "x v", "z")]
    how = Quantised(Range(-3, 3), SMOOTHING if smooths else None)
    made = reduced(
        tmp_path,
        graph_of(tmp_path, nodes, {"w": W, "v": V}, "y z"),
        Plan("int8", quantised={"w": how, "v": how}),
    )
    factors = SMOOTHING if smooths else np.ones(4, np.float32)
    given = activation(X * (1 / factors).astype(np.float32), -3, 3)
    actual = computed(tmp_path / "int8" / "model.onnx", X)
    for name, one in (("y", W), ("z", V)):
        np.testing.assert_allclose(actual[name], given @ weight(one * factors[:, None]), **ALIKE)
    found = operators(made)
    assert (found["QuantizeLinear"], found["DequantizeLinear"], found.get("Mul", 0)) == (
        1,
        3,
        int(smooths),
    )


def test_a_product_without_a_range_stays_in_float32(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x v", "inner"), node("MatMul", "inner w", "y")]
    plan = Plan("int8", quantised={"w": Quantised(Range(-9, 9))})
    reduced(tmp_path, graph_of(tmp_path, nodes, {"w": W, "v": V, "unused": W[0]}), plan)
    expected = activation(X @ V, -9, 9) @ weight(W)
    actual = computed(tmp_path / "int8" / "model.onnx", X)["y"]
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5)
    entries = read_header(tmp_path / "int8" / WEIGHTS_FILE)
    assert {name: one.dtype for name, one in entries.items()} == {
        "w.int8": "I8",
        "w.scale": "F32",
        "v": "F32",
        "unused": "F32",
    }


FUSED = RANDOM.standard_normal((9, 4), np.float32)
SPLIT = [
    node("Split", "qkv lengths", "q k v", axis=0),
    *(node("Transpose", one, f"{one}t", perm=[1, 0]) for one in "qkv"),
    *(node("MatMul", f"x {one}t", f"{one}_made") for one in "qkv"),
    node("Concat", "q_made k_made v_made", "y", axis=1),
]
"""The layout of timm: the weights of three products are the rows of one tensor."""


@pytest.mark.parametrize("stored", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("left", ["", "k"], ids=["all", "but-one"])
def test_the_rows_of_a_fused_weight_are_quantised_each_on_their_own(
    tmp_path: Path, left: str, stored: str
) -> None:
    nodes, held = SPLIT, FUSED
    if stored != "F32":
        nodes = [
            node("Cast", "qkv", "wide", to=1),
            node("Split", "wide lengths", "q k v", axis=0),
            *SPLIT[1:],
        ]
    model = graph_of(
        tmp_path, nodes, {"qkv": held}, constants={"lengths": np.array([2, 3, 4])}, stored=stored
    )
    tensor = model.graph.initializers["qkv"].const_value
    assert tensor is not None
    held = tensor.numpy().astype(np.float32)
    how = Quantised(Range(-3, 3))
    plan = Plan("int8", quantised={one: how for one in "qkv" if one != left})
    made = reduced(tmp_path, model, plan)
    rows = dict(zip("qkv", np.split(held, [2, 5]), strict=True))
    given = activation(X, -3, 3)
    expected = np.concatenate(
        [X @ one.T if name == left else given @ weight(one.T) for name, one in rows.items()], axis=1
    )
    np.testing.assert_allclose(computed(tmp_path / "int8" / "model.onnx", X)["y"], expected, **ALIKE)
    entries = read_header(tmp_path / "int8" / WEIGHTS_FILE)
    assert ("qkv" in entries) == bool(left), "a weight in float32 is kept for a product in float32 alone"
    assert ("Split" in operators(made)) == bool(left)


NESTED = RANDOM.standard_normal((2, 3, 4), np.float32)


@pytest.mark.parametrize("at_the_end", [True, False])
def test_a_product_without_a_calibration_finds_the_range_of_each_run(
    tmp_path: Path, at_the_end: bool
) -> None:
    nodes = [node("MatMul", "x w", "y"), *([] if at_the_end else [node("Relu", "y", "z")])]
    model = graph_of(tmp_path, nodes, {"w": W}, "y" if at_the_end else "z", shape=("n", 3, 4))
    made = reduced(tmp_path, model, Plan("int8-dynamic", quantised={"w": Quantised(None)}))
    path = tmp_path / "int8-dynamic" / "model.onnx"
    for x in (NESTED, 100 * NESTED, np.abs(NESTED)):
        expected = activation(x, min(float(x.min()), 0), max(float(x.max()), 0)) @ weight(W)
        expected = expected if at_the_end else np.maximum(expected, 0)
        for fused in (False, True):
            (actual,) = computed(path, x, fused).values()
            np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-6 * np.abs(x).max())
    found = operators(made)
    assert (found["DynamicQuantizeLinear"], found["MatMulInteger"]) == (1, 1)
    assert "MatMul" not in found
    assert [(one.name, one.dtype) for one in made.graph.outputs] == [
        ("y" if at_the_end else "z", ir.DataType.FLOAT)
    ]


def test_one_range_of_a_run_serves_all_products_of_a_value(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x w", "y"), node("MatMul", "x v", "z")]
    plan = Plan("int8-dynamic", quantised={"w": Quantised(None), "v": Quantised(None)})
    made = reduced(tmp_path, graph_of(tmp_path, nodes, {"w": W, "v": V}, "y z"), plan)
    given = activation(X, float(X.min()), float(X.max()))
    actual = computed(tmp_path / "int8-dynamic" / "model.onnx", X)
    np.testing.assert_allclose(actual["y"], given @ weight(W), **ALIKE)
    np.testing.assert_allclose(actual["z"], given @ weight(V), **ALIKE)
    assert operators(made)["DynamicQuantizeLinear"] == 1


def test_a_plan_for_a_product_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    model = graph_of(tmp_path, ONE_PRODUCT, {"w": W})
    plan = Plan("int8", quantised={"other": Quantised(Range(0, 1))})
    with pytest.raises(PassError, match="there is no product with other"):
        run_passes(model, [PASS], PassContext(plan=plan))
