"""The pattern that CANN is published to replace by its tanh form, in every spelling that it accepts."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import nn

from vconv.convert.patches.gelu_erf import GeluErf
from vconv.validators.checks.fusible_gelu import fusible_gelus

OLD = Path(__file__).parents[2] / "data" / "artifact-0.1.0"
ROOT, INVERSE = math.sqrt(2), 1 / math.sqrt(2)


def graph(
    *,
    first: str = "Div",
    root: float = ROOT,
    half_first: bool = True,
    swapped: bool = False,
    shape: tuple[int, ...] = (),
    dtype: type = np.float32,
    as_nodes: bool = False,
    read_twice: bool = False,
) -> ir.Model:
    """Spell x * (1 + erf(x / sqrt(2))) / 2 in one of the ways that an exporter has."""
    numbers: dict[str, NDArray[np.generic]] = {
        name: np.full(shape, value, dtype) for name, value in (("c", root), ("one", 1.0), ("half", 0.5))
    }

    def node(operator: str, left: str, right: str, out: str) -> onnx.NodeProto:
        turned = swapped and operator != "Div"
        return helper.make_node(operator, [right, left] if turned else [left, right], [out], out)

    nodes = [
        node(first, "x", "c", "scaled"),
        helper.make_node("Erf", ["scaled"], ["erf"], "erf"),
        node("Add", "erf", "one", "added"),
    ]
    if half_first:
        nodes += [node("Mul", "x", "half", "halved"), node("Mul", "added", "halved", "y")]
    else:
        nodes += [node("Mul", "x", "added", "product"), node("Mul", "product", "half", "y")]
    if read_twice:
        nodes.append(helper.make_node("Neg", ["erf"], ["z"], "z"))
    constants = [numpy_helper.from_array(value, name) for name, value in numbers.items()]
    if as_nodes:
        made = [helper.make_node("Constant", [], [one.name], one.name, value=one) for one in constants]
        nodes, constants = made + nodes, []
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    values = [helper.make_tensor_value_info(name, kind, [4]) for name in ("x", "y", *(["z"] * read_twice))]
    found = helper.make_graph(nodes, "g", values[:1], values[1:], constants)
    model = helper.make_model(found, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    return ir.from_proto(model)


@pytest.mark.parametrize("half_first", [True, False], ids=["half of x", "half of the product"])
@pytest.mark.parametrize("swapped", [False, True], ids=["in order", "swapped"])
@pytest.mark.parametrize("shape", [(), (1,)], ids=["scalar", "[1]"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("as_nodes", [False, True], ids=["initializers", "nodes"])
def test_every_spelling_that_is_fused_is_found(
    half_first: bool, swapped: bool, shape: tuple[int, ...], dtype: type, as_nodes: bool
) -> None:
    # float16 rounds sqrt(2) to 1.4140625, farther from 1.41421 than the published bound.
    fused = dtype is np.float32
    found = graph(half_first=half_first, swapped=swapped, shape=shape, dtype=dtype, as_nodes=as_nodes)
    assert fusible_gelus(found) == (["erf"] if fused else [])


@pytest.mark.parametrize(
    "other",
    [
        {"first": "Mul", "root": INVERSE},
        {"root": 1.4143},
        {"shape": (4,)},
        {"shape": (1, 1)},
        {"read_twice": True},
    ],
    ids=str,
)
def test_a_spelling_that_is_not_fused_is_not_found(other: dict[str, object]) -> None:
    assert fusible_gelus(graph(**other)) == []  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["model.onnx", "model.npu.onnx"])
def test_the_graphs_of_version_0_1_0_are_found(name: str) -> None:
    model = onnx.load(OLD / name, load_external_data=False)
    expected = [node.name for node in model.graph.node if node.op_type == "Erf"]
    assert len(expected) == 2
    assert fusible_gelus(ir.from_proto(model)) == expected


@pytest.mark.parametrize(
    ("module", "fused"), [(nn.GELU().eval(), 1), (GeluErf().eval(), 0)], ids=["torch's GELU", "the patch"]
)
def test_a_stock_export_is_found_and_the_patch_is_not(module: nn.Module, fused: int) -> None:
    program = torch.onnx.export(module, (torch.zeros(2, 3),), dynamo=True, opset_version=18, verbose=False)
    assert program is not None
    erfs = [node for node in program.model.graph if node.op_type == "Erf"]
    assert (len(erfs), len(fusible_gelus(program.model))) == (1, fused)


def test_float16_and_float32_are_the_only_types() -> None:
    assert fusible_gelus(graph(dtype=np.float64)) == []
