"""The GELUs that CANN is published to replace by its tanh form, in every spelling that it accepts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import nn

from vconv.convert.ascend.fusions.base import Effect
from vconv.convert.ascend.fusions.table import firing
from vconv.convert.patches.gelu_erf import GeluErf

OLD = Path(__file__).parents[3] / "data" / "artifact-0.1.0"
ROOT, INVERSE = math.sqrt(2), 1 / math.sqrt(2)
EXACT, TANH = "GeluONNXFusionPass", "GeluFusionPass"


@dataclass(frozen=True)
class Spelling:
    """A way to write x * (1 + erf(x / sqrt(2))) / 2.

    Args:
        first: the operator before Erf.
        root: its constant.
        one: what is added to Erf.
        half: the factor at the end.
        order: where the factor stands: on x, on the product, or on the sum.
        swapped: whether the constants of Add and Mul come first.
        constant_first: whether the constant of the first operator comes first.
        shape: of the constants.
        dtype: of all values.
        as_nodes: whether the constants are nodes.
        computed: the operator that computes the constant of the first one from ``given``; empty if none does.
        given: what that operator takes.
        twice: the value that another node reads too.
        cast: whether a Cast stands between Erf and Add.
        another: whether another value than x is halved.
    """

    first: str = "Div"
    root: float = ROOT
    one: float = 1.0
    half: float = 0.5
    order: str = "x"
    swapped: bool = False
    constant_first: bool = False
    shape: tuple[int, ...] = ()
    dtype: type = np.float32
    as_nodes: bool = False
    computed: str = ""
    given: float = 2.0
    twice: str = ""
    cast: bool = False
    another: bool = False


def written(spelling: Spelling) -> ir.Model:
    """Write a graph with this GELU and nothing else."""
    numbers: dict[str, NDArray[np.generic]] = {
        name: np.full(spelling.shape, value, spelling.dtype)
        for name, value in (("c", spelling.root), ("one", spelling.one), ("half", spelling.half))
    }

    def node(operator: str, left: str, right: str, out: str) -> onnx.NodeProto:
        return helper.make_node(operator, [right, left] if spelling.swapped else [left, right], [out], out)

    kind = helper.np_dtype_to_tensor_dtype(np.dtype(spelling.dtype))
    given = ["c", "x"] if spelling.constant_first else ["x", "c"]
    nodes = [
        helper.make_node(spelling.first, given, ["scaled"], "scaled"),
        helper.make_node("Erf", ["scaled"], ["erf"], "erf"),
    ]
    if spelling.cast:
        nodes.append(helper.make_node("Cast", ["erf"], ["wide"], "wide", to=kind))
    nodes.append(node("Add", "wide" if spelling.cast else "erf", "one", "added"))
    halved = "z" if spelling.another else "x"
    nodes += {
        "x": [node("Mul", halved, "half", "first"), node("Mul", "added", "first", "y")],
        "product": [node("Mul", "x", "added", "first"), node("Mul", "first", "half", "y")],
        "sum": [node("Mul", "half", "added", "first"), node("Mul", halved, "first", "y")],
    }[spelling.order]
    outputs = ["y"]
    if spelling.twice:
        nodes.append(helper.make_node("Neg", [spelling.twice], ["again"], "again"))
        outputs.append("again")
    constants = [numpy_helper.from_array(value, name) for name, value in numbers.items()]
    if spelling.as_nodes:
        made = [helper.make_node("Constant", [], [one.name], one.name, value=one) for one in constants]
        nodes, constants = made + nodes, []
    if spelling.computed:
        del constants[0]
        constants.append(numpy_helper.from_array(np.full(spelling.shape, spelling.given, np.float32), "two"))
        nodes.insert(0, helper.make_node(spelling.computed, ["two"], ["c"], "c"))
    inputs = ["x", "z"] if spelling.another else ["x"]
    values = {name: helper.make_tensor_value_info(name, kind, [4]) for name in (*inputs, *outputs)}
    graph = helper.make_graph(
        nodes, "g", [values[name] for name in inputs], [values[name] for name in outputs], constants
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    return ir.from_proto(model)


SPELLINGS = {
    "x is halved": (Spelling(), True),
    "the product is halved": (Spelling(order="product"), True),
    "the sum is halved, as torch writes it": (Spelling(order="sum"), True),
    "constants first": (Spelling(swapped=True), True),
    "constants first, the product is halved": (Spelling(swapped=True, order="product"), True),
    "constants of shape [1]": (Spelling(shape=(1,)), True),
    "constants of shape [1, 1]": (Spelling(shape=(1, 1)), False),
    "a constant for each value": (Spelling(shape=(4,)), False),
    "constants as nodes": (Spelling(as_nodes=True), True),
    "the root is computed": (Spelling(computed="Sqrt"), True),
    "the root of another number": (Spelling(computed="Sqrt", given=3.0), False),
    "the constant is a copy": (Spelling(computed="Identity", given=ROOT), True),
    "the root is computed of two numbers": (Spelling(computed="Sqrt", shape=(2,)), False),
    "1.41421": (Spelling(root=1.41421), True),
    "9e-6 above 1.41421": (Spelling(root=1.41421 + 9e-6), True),
    "9e-6 below 1.41421": (Spelling(root=1.41421 - 9e-6), True),
    "2e-5 above sqrt(2)": (Spelling(root=ROOT + 2e-5), False),
    "2e-5 below sqrt(2)": (Spelling(root=ROOT - 2e-5), False),
    "1 and the next float32": (Spelling(one=1 + 2**-23), True),
    "1 and the second next float32": (Spelling(one=1 + 2**-22), False),
    "another factor than 1/2 for x": (Spelling(half=0.5 + 2**-22), False),
    "another factor than 1/2 for the product": (Spelling(half=0.25, order="product"), False),
    "another factor than 1/2 for the sum": (Spelling(half=2.0, order="sum"), False),
    "a product with 1 / sqrt(2)": (Spelling(first="Mul", root=INVERSE), False),
    "a product with sqrt(2)": (Spelling(first="Mul"), False),
    "sqrt(2) / x": (Spelling(constant_first=True), True),
    # float16 rounds sqrt(2) to 1.4140625, farther from 1.41421 than the bound.
    "float16": (Spelling(dtype=np.float16), False),
    "float64": (Spelling(dtype=np.float64), False),
    "a cast after Erf": (Spelling(cast=True), False),
    "the quotient is read twice": (Spelling(twice="scaled"), False),
    "Erf is read twice": (Spelling(twice="erf"), False),
    "the sum is read twice": (Spelling(twice="added"), False),
    "the half is read twice": (Spelling(twice="first"), False),
    "the result is read twice": (Spelling(twice="y"), True),
    "another value is halved": (Spelling(another=True), True),
    "another value is multiplied": (Spelling(another=True, order="sum"), True),
}
"""Each with whether the published pass replaces it."""


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_spelling_is_replaced_by_the_published_conditions(name: str) -> None:
    spelling, fused = SPELLINGS[name]
    found = firing(written(spelling)).get(EXACT, [])
    assert [(match.place, match.effect) for match in found] == [("y", Effect.RESULT)] * fused
    assert [match.operand.name for match in found] == ["c" if spelling.constant_first else "x"] * fused


def test_what_an_output_of_the_graph_reads_is_read_by_another() -> None:
    model = written(Spelling())
    model.graph.outputs.append(next(node for node in model.graph if node.op_type == "Erf").outputs[0])
    assert EXACT not in firing(model)


@pytest.mark.parametrize("missing", [False, True], ids=["there", "missing"])
def test_constants_in_a_file_outside_are_read_if_it_is_there(tmp_path: Path, missing: bool) -> None:
    path = tmp_path / "model.onnx"
    proto = ir.to_proto(written(Spelling()))
    onnx.save(proto, path, save_as_external_data=True, size_threshold=0, location="weights.bin")
    model = ir.load(path)
    assert all(isinstance(one.const_value, ir.ExternalTensor) for one in model.graph.initializers.values())
    if missing:
        (tmp_path / "weights.bin").unlink()
    assert (EXACT in firing(model)) is not missing


@pytest.mark.parametrize("name", ["model.onnx", "model.npu.onnx"])
def test_every_gelu_of_version_0_1_0_is_replaced(name: str) -> None:
    model = onnx.load(OLD / name, load_external_data=False)
    assert [node.op_type for node in model.graph.node].count("Erf") == 2
    assert len(firing(ir.from_proto(model))[EXACT]) == 2


@pytest.mark.parametrize(
    ("module", "fused"), [(nn.GELU().eval(), 1), (GeluErf().eval(), 0)], ids=["torch's GELU", "the patch"]
)
def test_a_stock_export_is_replaced_and_the_patch_is_not(module: nn.Module, fused: int) -> None:
    program = torch.onnx.export(module, (torch.zeros(2, 3),), dynamo=True, opset_version=18, verbose=False)
    assert program is not None
    erfs = [node for node in program.model.graph if node.op_type == "Erf"]
    assert (len(erfs), len(firing(program.model).get(EXACT, []))) == (1, fused)


def tanh_form(cubic: float = 0.044715, half_first: bool = False, twice: str = "") -> ir.Model:
    """Write x * (1 + tanh(c * (x + d * x^3))) / 2."""
    numbers = {"three": 3.0, "d": cubic, "c": math.sqrt(2 / math.pi), "one": 1.0, "half": 0.5}
    steps = [
        ("Pow", "x", "three", "cube"),
        ("Mul", "cube", "d", "small"),
        ("Add", "x", "small", "summed"),
        ("Mul", "summed", "c", "scaled"),
        ("Tanh", "scaled", "", "tanh"),
        ("Add", "tanh", "one", "added"),
        *([("Mul", "x", "half", "halved")] if half_first else [("Mul", "added", "half", "halved")]),
        ("Mul", *(("halved", "added") if half_first else ("x", "halved")), "y"),
        ("Neg", "y", "", "z"),
        *([("Neg", twice, "", "again")] if twice else []),
    ]
    nodes = [helper.make_node(kind, [a, b] if b else [a], [out], out) for kind, a, b, out in steps]
    values = [helper.make_tensor_value_info(one, 1, [4]) for one in ("x", "z", *(["again"] * bool(twice)))]
    constants = [numpy_helper.from_array(np.array(one, np.float32), name) for name, one in numbers.items()]
    model = helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:], constants))
    onnx.checker.check_model(model)
    return ir.from_proto(model)


@pytest.mark.parametrize("half_first", [False, True], ids=["the sum is halved", "x is halved"])
def test_the_tanh_form_is_replaced_by_itself(half_first: bool) -> None:
    (match,) = firing(tanh_form(half_first=half_first))[TANH]
    assert (match.place, match.effect, match.operand.name) == ("y", Effect.ROUNDING, "x")


def test_another_function_of_the_same_form_becomes_the_tanh_form() -> None:
    (match,) = firing(tanh_form(cubic=0.05))[TANH]
    assert match.effect is Effect.RESULT


@pytest.mark.parametrize("twice", ["cube", "small", "summed", "scaled", "tanh", "added", "halved", "y"])
def test_the_tanh_form_of_which_a_part_is_read_twice_stays(twice: str) -> None:
    assert TANH not in firing(tanh_form(twice=twice))
