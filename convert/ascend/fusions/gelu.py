"""The passes that put CANN's operator ``Gelu``, which is the tanh form, in the place of a spelled-out GELU.

Sources: the passes in canndev, ``ops/built-in/fusion_pass/graph_fusion/ai_core/gelu_onnx_fusion_pass.cc`` and
``gelu_fusion_pass.cc`` (2019 to 2022, Apache-2.0), and how their patterns are matched in metadef,
``pattern_fusion_base_pass_impl.cc``; the operator in hicann/ops-nn, ``activation/gelu/README.md``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx_ir as ir

from vconv.convert.ascend.fusions.base import Effect, Fusion, Match
from vconv.convert.ascend.fusions.numbers import holds, number
from vconv.convert.graphs.nodes import of_type, only_reader, other_input, producer, read_once

GELU = "Gelu"
"""The operator of CANN that computes the tanh form, whatever it is asked for."""
ROOT, ROOT_TOLERANCE = 1.41421, 1e-5
"""What the pass takes for sqrt(2)."""
TOLERANCE = 1.1920929e-07
"""The greatest difference from 1 and from 1/2: float32's epsilon."""
_OF_TANH = (3.0, 0.044715, math.sqrt(2 / math.pi), 1.0, 0.5)
"""The constants of the tanh GELU (Hendrycks and Gimpel, 2016)."""
_NEAR = 1e-3


def _from_erf(model: ir.Model) -> Iterator[Match]:
    for erf in of_type(model, "Erf"):
        nodes = _erf_form(erf)
        if nodes and nodes[0].inputs[0] is not None:
            yield Match(nodes, nodes[0].inputs[0], Effect.RESULT)


def _erf_form(erf: ir.Node) -> tuple[ir.Node, ...] | None:
    """Return the five nodes of the exact GELU around an ``Erf``, in any order that the pass may accept.

    The pass does not check that it is x by which the sum is multiplied. Its code looks at the inputs of a
    product in order; here either order counts. So what is not found here is not found there.
    """
    scaled, added = producer(erf.inputs[0], "Div"), only_reader(erf, "Add")
    if scaled is None or not read_once(scaled) or not holds(scaled, ROOT, ROOT_TOLERANCE):
        return None
    product = only_reader(added, "Mul") if added is not None and holds(added, 1.0, TOLERANCE) else None
    if added is None or product is None:
        return None
    halved = producer(other_input(product, added.outputs[0]), "Mul")
    if halved is not None and read_once(halved) and holds(halved, 0.5, TOLERANCE):
        return scaled, erf, added, halved, product
    last = only_reader(product, "Mul")
    if last is None:
        return None
    factors = [one for one in map(number, product.inputs) if one is not None]
    right = abs(factors[0] - 0.5) <= TOLERANCE if factors else holds(last, 0.5, TOLERANCE)
    return (scaled, erf, added, product, last) if right else None


def _from_tanh(model: ir.Model) -> Iterator[Match]:
    for tanh in of_type(model, "Tanh"):
        before, after = _tanh_argument(tanh), only_reader(tanh, "Add")
        if before is None or after is None:
            continue
        power, *_ = before
        x = power.inputs[0]
        last = _tanh_end(after, x)
        if last is not None and x is not None and read_once(last[-1]):
            nodes = (*before, tanh, after, *last)
            yield Match(nodes, x, Effect.ROUNDING if _is_gelu(nodes) else Effect.RESULT)


def _tanh_argument(tanh: ir.Node) -> tuple[ir.Node, ...] | None:
    """Return the nodes that compute c * (x + d * x^3), whatever their constants are."""
    scaled = producer(tanh.inputs[0], "Mul")
    if scaled is None or not read_once(scaled):
        return None
    for value in scaled.inputs:
        summed = producer(value, "Add")
        for cube in summed.inputs if summed is not None and read_once(summed) else ():
            small = producer(cube, "Mul")
            if summed is None or small is None or not read_once(small):
                continue
            powers = [found for given in small.inputs if (found := producer(given, "Pow"))]
            if powers and read_once(powers[0]) and other_input(summed, cube) is powers[0].inputs[0]:
                return powers[0], small, summed, scaled
    return None


def _tanh_end(added: ir.Node, x: ir.Value | None) -> tuple[ir.Node, ir.Node] | None:
    """Return the two products after the sum with 1, in either of the two published orders."""
    product = only_reader(added, "Mul")
    if product is None:
        return None
    halved, last = producer(other_input(product, added.outputs[0]), "Mul"), only_reader(product, "Mul")
    if halved is not None and read_once(halved) and x in halved.inputs:
        return halved, product
    return (product, last) if last is not None and x in last.inputs else None


def _is_gelu(nodes: tuple[ir.Node, ...]) -> bool:
    """Return whether the constants of a match are those of the tanh GELU."""
    found = sorted(one for node in nodes for value in node.inputs if (one := number(value)) is not None)
    wanted = sorted(_OF_TANH)
    return len(found) == len(wanted) and all(
        math.isclose(one, other, rel_tol=_NEAR) for one, other in zip(found, wanted, strict=True)
    )


_SOURCE = "canndev, fusion_pass/graph_fusion/ai_core"
FUSIONS = (
    Fusion(
        "GeluONNXFusionPass",
        "Div, Erf, Add, Mul, Mul",
        "division by 1.41421 within 1e-5; 1 and 1/2 within 1.2e-7; numbers of shape [] or [1]; each node "
        "but the last is read once",
        GELU,
        "the exact GELU becomes its tanh form, up to 4.7e-4 away",
        "on by default, but for Ascend950; seen to fire on a 310P",
        f"{_SOURCE}/gelu_onnx_fusion_pass.cc; hicann/opbase, support_fusion_pass.json",
        _from_erf,
        off=True,
    ),
    Fusion(
        "GeluFusionPass",
        "Pow, Mul, Add, Mul, Tanh, Add, Mul, Mul",
        "each node is read once; no constant is checked",
        GELU,
        "none for the tanh GELU; any other function of this form becomes the tanh GELU",
        "on by default, but for Ascend950",
        f"{_SOURCE}/gelu_fusion_pass.cc; hiascend.com, Graph Fusion and UB Fusion Patterns, GeluFusionPass",
        _from_tanh,
        off=True,
    ),
)
