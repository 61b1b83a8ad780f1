"""The checks of a graph that another exporter wrote: what makes it right, not what makes it vconv's."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import onnx
import onnx_ir as ir

from vconv.convert.architectures.base import Capability
from vconv.convert.ascend import operators as cann
from vconv.convert.ascend.fusions import table as fusions
from vconv.convert.graphs.layer_norms import layer_norms
from vconv.convert.network import Network
from vconv.types import Check, Status
from vconv.validators.foreign.graph_file import GraphFile, weights_of

_CUBIC = 0.044715
"""The factor of x^3 in the tanh form of GELU (Hendrycks and Gimpel, 2016, section 2)."""
_SIGMOID = 1.702
"""The factor of x in the sigmoid form of GELU (the same paper)."""
_NEAR = 1e-3
_EXACT = frozenset({"Erf", "BiasGelu"})
_TANH = frozenset({"FastGelu"})
_JOINED_NORMS = frozenset({"SkipLayerNormalization", "EmbedLayerNormalization"})
_JOINED_EPSILON = 1e-12
"""ONNX Runtime's default epsilon of these (docs/ContribOperators.md)."""
_NORMS_IN_BLOCK = 2
"""LayerNorms in a block of a vision transformer; a block of a ConvNeXt has one."""
_QUICK = frozenset({"QuickGelu"})


def gelus(model: onnx.ModelProto) -> Counter[str]:
    """Count the GELUs of a graph by their form: ``exact``, ``tanh`` or ``sigmoid``.

    Besides those that are spelled out, ONNX's operator ``Gelu`` and ONNX Runtime's own operators count.
    """
    found: Counter[str] = Counter()
    for node in model.graph.node:
        if node.op_type == "Gelu":
            form = next((one.s for one in node.attribute if one.name == "approximate"), b"none")
            found["tanh" if form == b"tanh" else "exact"] += 1
        elif node.op_type in _EXACT:
            found["exact"] += 1
        elif node.op_type in _TANH:
            found["tanh"] += 1
        elif node.op_type in _QUICK:
            found["sigmoid"] += 1
    for number in _scalar_factors(model):
        if math.isclose(number, _CUBIC, rel_tol=_NEAR):
            found["tanh"] += 1
        elif math.isclose(number, _SIGMOID, rel_tol=_NEAR):
            found["sigmoid"] += 1
    return found


def _scalar_factors(model: onnx.ModelProto) -> Iterator[float]:
    """Yield the number by which each product with one number multiplies."""
    numbers: dict[str, float] = {}
    for tensor in weights_of(model):
        if math.prod(tensor.dims) == 1 and not tensor.external_data:
            numbers[tensor.name] = float(onnx.numpy_helper.to_array(tensor).reshape(-1)[0])
    for node in model.graph.node:
        if node.op_type == "Mul":
            yield from (numbers[name] for name in node.input if name in numbers)


def _exact_gelu(graph: GraphFile, network: Network, npu: bool) -> Check:
    name, wanted, found = f"{graph.path.name}: exact GELU", network.gelus, gelus(graph.model)
    told = ", ".join(f"{count} {form}" for form, count in sorted(found.items())) or "none"
    if not wanted:
        return Check(name, Status.SKIPPED, "the network has no exact GELU")
    if found["exact"] >= wanted and not found["tanh"] and not found["sigmoid"]:
        return Check(name, Status.PASSED, f"all {wanted} GELUs are exact")
    if found["tanh"] or found["sigmoid"]:
        return Check(name, Status.FAILED, f"GELUs: {told}, expected {wanted} exact", "activation")
    return Check(name, Status.SKIPPED, f"GELUs that can be recognised: {told}, of {wanted}")


def _epsilon(graph: GraphFile, network: Network, npu: bool) -> Check:
    name = f"{graph.path.name}: epsilon"
    if lack := network.lack(Capability.ROLES):
        return Check(name, Status.SKIPPED, lack)
    wanted, norms = network.numbers.epsilon, _epsilons(graph.model)
    # In float16, such a number has three digits.
    near, least = (1e-6, 0.0) if graph.precision == "fp32" else (1e-2, 6e-8)
    wrong = [one for one in norms if not math.isclose(one, wanted, rel_tol=near, abs_tol=least)]
    if wrong:
        told = f"{len(wrong)} of {len(norms)} LayerNorms have {wrong[0]:.3g}, expected {wanted:.3g}"
        return Check(name, Status.FAILED, told, "epsilon")
    expected = network.blocks * (1 if network.stages else _NORMS_IN_BLOCK)
    if len(norms) < expected:
        told = f"{len(norms)} LayerNorms are recognised, of {expected} in the blocks alone"
        return Check(name, Status.SKIPPED, told)
    return Check(name, Status.PASSED, f"all {len(norms)} LayerNorms have {wanted:.3g}")


def _epsilons(model: onnx.ModelProto) -> list[float]:
    """List the epsilons of all LayerNorms: ONNX's, spelled out, and those of ONNX Runtime's own operators."""
    found = [norm.epsilon for norm in layer_norms(ir.from_proto(model))]
    for node in model.graph.node:
        if node.op_type in _JOINED_NORMS:
            found.append(next((one.f for one in node.attribute if one.name == "epsilon"), _JOINED_EPSILON))
    return found


def harmful_fusions(model: onnx.ModelProto) -> dict[str, int]:
    """Count the places in which each published pass of CANN's compiler would change a result."""
    return {name: len(matches) for name, matches in fusions.harmful(ir.from_proto(model)).items()}


def unlisted_operators(model: onnx.ModelProto) -> list[str]:
    """List the operators of a graph that CANN does not list."""
    return sorted({node.op_type for node in model.graph.node} - cann.SUPPORTED)


def _fusions(graph: GraphFile, network: Network, npu: bool) -> Check:
    name = f"{graph.path.name}: fusions"
    for fusion, places in harmful_fusions(graph.model).items():
        row = fusions.FUSIONS[fusion]
        told = f"{fusion} of CANN puts {row.becomes} in {places} places: {row.numbers}"
        fault = "activation" if row.becomes == fusions.GELU else "graph"
        if npu:
            return Check(name, Status.FAILED, told, fault)
        return Check(name, Status.SKIPPED, f"for CPU and GPU only: {told}")
    return Check(name, Status.PASSED, "no published pass of CANN's compiler changes a result of it")


def _operators(graph: GraphFile, network: Network, npu: bool) -> Check:
    name, model = f"{graph.path.name}: NPU operators", graph.model
    lacking = unlisted_operators(model)
    opset = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 0)
    told = f"operators that CANN does not list: {', '.join(lacking)}" if lacking else ""
    if not told and opset > cann.GREATEST_OPSET:
        told = f"opset {opset}, expected at most {cann.GREATEST_OPSET}"
    if not told:
        return Check(name, Status.PASSED, "CANN lists every operator of it")
    if npu:
        return Check(name, Status.FAILED, told, "graph")
    return Check(name, Status.SKIPPED, f"for CPU and GPU only: {told}")


RULES: Mapping[str, Callable[[GraphFile, Network, bool], Check]] = {
    "exact GELU": _exact_gelu,
    "epsilon": _epsilon,
    "fusions": _fusions,
    "NPU operators": _operators,
}
"""Every rule, by name."""


def check_rules(graph: GraphFile, network: Network, npu: bool = False) -> list[Check]:
    """Check a graph against every rule.

    Args:
        graph: the graph.
        network: the network that it computes.
        npu: whether it is meant for an NPU. If not, what an NPU lacks is said, and no failure.
    """
    return [rule(graph, network, npu) for rule in RULES.values()]
