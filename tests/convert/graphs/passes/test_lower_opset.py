from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, defs, helper, numpy_helper

from vconv.convert.ascend.fusions.table import firing
from vconv.convert.ascend.operators import NPU_OPSETS
from vconv.convert.graphs.passes.base import PassContext, PassError, run_passes
from vconv.convert.graphs.passes.lower_opset import PASS, lower_opset
from vconv.convert.graphs.passes.older_forms import OLDER_FORMS
from vconv.convert.graphs.passes.table import FOR_NPU, named
from vconv.errors import InputError

TRACED = 18
WHOLE = TensorProto.INT64
ULP = 1.2e-7
"""The greatest relative rounding error of float32."""


@dataclass(frozen=True)
class Case:
    """One node of opset 18.

    Args:
        operator: its operator.
        inputs: the shape of each input that the graph is given, or the value of each that is constant, or
            None for one that is left out.
        attributes: its attributes.
        outputs: the number of its outputs.
        tolerance: the greatest difference, relative to the greatest value; 0 if the numbers are the same.
        sure: whether every input is positive.
    """

    operator: str
    inputs: Sequence[tuple[int, ...] | np.ndarray | None]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    tolerance: float = 0
    sure: bool = False


def whole(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def line(length: int) -> np.ndarray:
    return np.linspace(0.5, 1.5, length, dtype=np.float32)


IMAGES = (2, 3, 6, 8)
GATES = [np.sin(np.arange(size, dtype=np.float32)).reshape(1, 12, -1) for size in (60, 36)]
CASES = {
    "LayerNormalization of the last axis": Case(
        "LayerNormalization", [IMAGES, line(8), line(8)], {"epsilon": 1e-3}, tolerance=8 * ULP
    ),
    "LayerNormalization of several axes": Case(
        "LayerNormalization",
        [IMAGES, line(48).reshape(6, 8), line(48).reshape(6, 8)],
        {"axis": -2},
        tolerance=8 * ULP,
    ),
    "LayerNormalization from an axis on, without a bias": Case(
        "LayerNormalization", [IMAGES, line(144).reshape(3, 6, 8)], {"axis": 1}, tolerance=8 * ULP
    ),
    "Split into equal parts": Case("Split", [IMAGES], {"num_outputs": 3, "axis": 1}, outputs=3),
    "Split with a shorter last part": Case("Split", [IMAGES], {"num_outputs": 3, "axis": -1}, outputs=3),
    "Split by lengths": Case("Split", [IMAGES, whole(1, 5)], {"axis": 2}, outputs=2),
    **{
        f"{name} of named axes": Case(name, [IMAGES, whole(-1, 1)], {"keepdims": 0}, tolerance=ULP, sure=True)
        for name, version in OLDER_FORMS
        if version == TRACED and name.startswith("Reduce")
    },
    "ReduceMean of all axes": Case("ReduceMean", [IMAGES], tolerance=ULP),
    "ReduceMax of no axis": Case("ReduceMax", [IMAGES, whole()], {"noop_with_empty_axes": 1}),
    "ReduceMax of no axis named": Case("ReduceMax", [IMAGES, whole()]),
    "ReduceSum, whose axes are an input since 13": Case("ReduceSum", [IMAGES, whole(2)], tolerance=ULP),
    "Pad of all axes": Case("Pad", [(3, 4), whole(1, 0, 2, 1)], {"mode": "reflect"}),
    "Pad of named axes": Case("Pad", [IMAGES, whole(1, 2, 3, 4), np.float32(7), whole(-1, 1)]),
    "Mish": Case("Mish", [IMAGES], tolerance=2 * ULP),
    "HardSwish": Case("HardSwish", [IMAGES], tolerance=2 * ULP),
    "CastLike": Case("CastLike", [IMAGES, np.float64(0)]),
    "Shape": Case("Shape", [IMAGES]),
    "Shape from an axis on": Case("Shape", [IMAGES], {"start": 1}),
    "Shape to an axis": Case("Shape", [IMAGES], {"start": -3, "end": -1}),
    "Reshape": Case("Reshape", [IMAGES, whole(0, -1)]),
    "Reshape with allowzero and no 0": Case("Reshape", [IMAGES, whole(6, -1)], {"allowzero": 1}),
    "ScatterND": Case("ScatterND", [(4, 5), whole(1, 3).reshape(2, 1), (2, 5)], {"reduction": "none"}),
    "ScatterElements": Case("ScatterElements", [(4, 5), whole(1, 3, 0).reshape(1, 3), (1, 3)], {"axis": 1}),
    "Resize by cubic convolution": Case(
        "Resize",
        [IMAGES, None, None, whole(2, 3, 9, 5)],
        {"mode": "cubic", "antialias": 0, "keep_aspect_ratio_policy": "stretch", "cubic_coeff_a": -0.75},
    ),
    "Resize to the nearest": Case(
        "Resize",
        [IMAGES, None, np.array([1, 1, 2, 1.5], np.float32)],
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    ),
    "BatchNormalization": Case("BatchNormalization", [IMAGES, line(3), line(3), line(3), line(3)]),
    "LSTM": Case("LSTM", [(4, 2, 5), *GATES], {"hidden_size": 3, "layout": 0}, outputs=2),
    "GRU": Case("GRU", [(4, 2, 5), GATES[0][:, :9], GATES[1][:, :9]], {"hidden_size": 3}, outputs=2),
    "RNN": Case("RNN", [(4, 2, 5), GATES[0][:, :3], GATES[1][:, :3]], {"hidden_size": 3}, outputs=2),
    "Where": Case("Where", [np.array([True, False]), (3, 2), (3, 2)]),
    "CumSum": Case("CumSum", [IMAGES, np.array(1)]),
    "Pow": Case("Pow", [IMAGES, np.float32(2)]),
    "PRelu": Case("PRelu", [IMAGES, line(8)]),
    **{
        name: Case(name, [IMAGES, IMAGES])
        for name in ("Add", "Sub", "Mul", "Div", "GreaterOrEqual", "LessOrEqual")
    },
    **{name: Case(name, [IMAGES]) for name in ("Identity", "Relu", "LeakyRelu")},
}
"""Nodes whose form a version from 14 to 18 changed, and their like."""


def model_of(case: Case, opset: int = TRACED, kind: int = TensorProto.FLOAT) -> ir.Model:
    """Make a graph of one node, as the exporter writes it: with the types and shapes of all values."""
    names = [f"x{place}" for place in range(len(case.inputs))]
    constants = [
        numpy_helper.from_array(np.asarray(value), name)
        for name, value in zip(names, case.inputs, strict=True)
        if isinstance(value, np.ndarray | np.generic)
    ]
    given = [
        helper.make_tensor_value_info(name, kind, value)
        for name, value in zip(names, case.inputs, strict=True)
        if isinstance(value, tuple)
    ]
    taken = [name if value is not None else "" for name, value in zip(names, case.inputs, strict=True)]
    made = [f"y{place}" for place in range(case.outputs)]
    node = helper.make_node(case.operator, taken, made, "node", **case.attributes)
    outputs = [onnx.ValueInfoProto(name=name) for name in made]
    graph = helper.make_graph([node], "g", given, outputs, constants)
    imports = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    return ir.from_proto(onnx.shape_inference.infer_shapes(model, strict_mode=True))


def lowered(model: ir.Model, opset: int) -> onnx.ModelProto:
    run_passes(model, named(FOR_NPU), PassContext(opset=opset))
    return ir.to_proto(model)


def run(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, feed))


def feed_of(case: Case) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(5)
    drawn = {
        f"x{place}": draw.standard_normal(shape, np.float32)
        for place, shape in enumerate(case.inputs)
        if isinstance(shape, tuple)
    }
    return {name: np.abs(value) + 0.5 if case.sure else value for name, value in drawn.items()}


@pytest.mark.parametrize("opset", [opset for opset in NPU_OPSETS if opset < TRACED])
@pytest.mark.parametrize("name", CASES)
def test_an_older_form_computes_what_the_operator_does(name: str, opset: int) -> None:
    case = CASES[name]
    model = model_of(case)
    expected, feed = run(ir.to_proto(model), feed_of(case)), feed_of(case)
    made = lowered(model, opset)
    assert [(entry.domain, entry.version) for entry in made.opset_import] == [("", opset)]
    onnx.checker.check_model(made, full_check=True)
    for node in made.graph.node:
        schema = defs.get_schema(node.op_type, opset)
        assert schema.since_version <= opset
        assert {attribute.name for attribute in node.attribute} <= set(schema.attributes)
    found = run(made, feed)
    assert len(found) == len(expected)
    for actual, wanted in zip(found, expected, strict=True):
        assert (actual.dtype, actual.shape) == (wanted.dtype, wanted.shape)
        bound = case.tolerance * np.abs(wanted).max() if case.tolerance else 0
        np.testing.assert_allclose(actual, wanted, rtol=0, atol=bound)


def test_every_row_is_the_beginning_of_a_form_and_has_a_case() -> None:
    for operator, since in OLDER_FORMS:
        assert defs.get_schema(operator, since).since_version == since
    assert {operator for operator, _ in OLDER_FORMS} <= {case.operator for case in CASES.values()}


def test_a_row_whose_form_stays_as_it_is_changes_only_types_and_attributes() -> None:
    for (operator, since), rewrite in OLDER_FORMS.items():
        if rewrite.__name__ == "_itself":
            newer, older = defs.get_schema(operator, since), defs.get_schema(operator, since - 1)
            assert len(newer.inputs) == len(older.inputs)
            assert older.attributes.keys() <= newer.attributes.keys()


REFUSED = {
    "an operator of opset 18": (
        Case("BitwiseNot", [whole(1)]), 17, "BitwiseNot (node)", "has no older form", 18,
    ),
    "an operator of opset 16": (
        Case("GridSample", [IMAGES, (2, 5, 5, 2)]), 15, "GridSample", "has no older form", 17,
    ),
    "an attribute": (
        Case("Resize", [IMAGES, None, None, whole(2, 3, 3, 4)], {"mode": "linear", "antialias": 1}),
        17, "Resize", "has the attribute antialias", 18,
    ),
    "a reduction of opset 18": (
        Case("ScatterND", [(4, 5), whole(1).reshape(1, 1), (1, 5)], {"reduction": "max"}),
        17, "ScatterND", "has the reduction max", 18,
    ),
    "a reduction of opset 16": (
        Case("ScatterND", [(4, 5), whole(1).reshape(1, 1), (1, 5)], {"reduction": "add"}),
        15, "ScatterND", "has the attribute reduction", 17,
    ),
    "axes that the graph computes": (
        Case("ReduceMean", [IMAGES, (1,)]), 17, "ReduceMean", "has axes that the graph computes", 18,
    ),
    "squares of no axis": (
        Case("ReduceSumSquare", [IMAGES, whole()], {"noop_with_empty_axes": 1}),
        17, "ReduceSumSquare", "reduces no axis", 18,
    ),
    "an empty tensor": (
        Case("Reshape", [(0, 4), whole(4, 0)], {"allowzero": 1}), 13, "Reshape", "makes an empty tensor", 15,
    ),
    "the deviation": (
        Case("LayerNormalization", [IMAGES, line(8)], outputs=3), 15, "LayerNorm", "returns the mean or", 17,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_older_form_is_refused_in_one_line_with_the_opset_that_has_it(name: str) -> None:
    case, opset, operator, reason, enough = REFUSED[name]
    model = model_of(case) if case.operator != "ReduceMean" else _with_computed_axes()
    with pytest.raises(InputError) as caught:
        lower_opset(model, opset)
    said = str(caught.value)
    assert said.startswith(f"the network cannot be written in opset {opset} | got {operator}")
    assert reason in said and said.endswith(f"fix: use --npu-opset {enough}") and "\n" not in said


def _with_computed_axes() -> ir.Model:
    x, axes, y = (ir.Value(name=name) for name in ("x", "axes", "y"))
    node = ir.node("ReduceMean", [x, axes], outputs=[y], name="node")
    return ir.Model(ir.Graph([x, axes], [y], nodes=[node], opset_imports={"": 18}), ir_version=8)


def test_a_type_that_the_older_operator_does_not_take_is_refused() -> None:
    model = model_of(Case("Relu", [(3,)]), kind=WHOLE)
    with pytest.raises(InputError, match=r"got Relu \(node\), which takes a tensor\(int64\)"):
        lower_opset(model, 13)
    assert lower_opset(model_of(Case("Relu", [(3,)]), kind=WHOLE), 15)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.FLOAT])
def test_a_layer_norm_of_large_values_with_little_variance_keeps_its_digits(kind: int) -> None:
    """A variance as the difference of two means would lose all of them: 1000^2 has no digit left for 1e-2."""
    given = (1000 + 10 * np.random.default_rng(0).standard_normal((4, 64))).astype(
        helper.tensor_dtype_to_np_dtype(kind)
    )
    scale = np.ones(64, given.dtype)
    made = lowered(model_of(Case("LayerNormalization", [(4, 64), scale], {"epsilon": 1e-6}), kind=kind), 13)
    (found,) = run(made, {"x0": given})
    exact = given.astype(np.float64)
    centred = exact - exact.mean(-1, keepdims=True)
    wanted = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    assert found.dtype == given.dtype
    error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
    assert error < (1e-5 if kind == TensorProto.FLOAT else 5e-4)


def test_names_stay_so_that_a_node_is_found_again() -> None:
    made = lowered(model_of(CASES["LayerNormalization of the last axis"]), 13)
    *others, last = made.graph.node
    assert (last.name, list(last.output)) == ("node", ["y0"])
    assert [node.name for node in others] == [f"node_opset13_{place}" for place in range(1, len(others) + 1)]
    assert [node.op_type for node in made.graph.node] == [
        *("ReduceMean", "Sub", "Pow", "ReduceMean", "Add", "Sqrt", "Div", "Mul", "Add")
    ]


def test_a_layer_norm_becomes_what_cann_fuses_into_one_operator_again() -> None:
    made = lowered(model_of(CASES["LayerNormalization of the last axis"]), 13)
    found = firing(ir.from_proto(made))
    assert {name: len(matches) for name, matches in found.items()} == {"LayerNormONNXFusionPass": 1}


def foreign(domain: str, operator: str) -> ir.Model:
    """Write a graph of one operator, that declares opset 17 of one domain."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    node = helper.make_node(operator, ["x"], ["y"], domain="" if domain == "ai.onnx" else domain)
    made = helper.make_graph([node], "g", values[:1], values[1:])
    return ir.from_proto(
        helper.make_model(made, opset_imports=[helper.make_opsetid(domain, 17)], ir_version=8)
    )


def test_a_graph_that_spells_the_domain_out_is_written_in_the_opset() -> None:
    model = foreign("ai.onnx", "Relu")
    run_passes(model, [PASS], PassContext(opset=13))
    assert dict(model.opset_imports) == {"": 13}


def test_a_graph_without_operators_of_onnx_stays() -> None:
    model = foreign("my.own", "Relu")
    (result,) = run_passes(model, [PASS], PassContext(opset=13))
    assert (result.modified, dict(model.opset_imports)) == (False, {"my.own": 17})


def test_a_graph_of_the_chosen_opset_stays_as_it_is() -> None:
    model = model_of(CASES["Split into equal parts"])
    (result,) = run_passes(model, [PASS], PassContext(opset=TRACED))
    assert not result.modified


def test_a_graph_that_does_not_fit_its_opset_is_an_error_of_the_pass() -> None:
    model = model_of(CASES["Mish"])
    model.opset_imports[""] = 17
    with pytest.raises(PassError, match='ensures "every operator fits the opset\'s schema", but .*Mish'):
        run_passes(model, [PASS], PassContext(opset=17))
    with pytest.raises(PassError, match="ensures 'the graph declares the chosen opset', but it declares 17"):
        run_passes(model, [PASS], PassContext(opset=18))
