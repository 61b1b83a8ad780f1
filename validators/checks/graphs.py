"""Checks of a graph: its operators, its shapes, and where its weights are stored."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from vconv.artifact.records import ContractRecord, TensorRecord, VariantRecord
from vconv.convert.architectures.base import NORM_ROLES, Capability
from vconv.convert.architectures.layer_outputs import layers_of
from vconv.convert.architectures.outputs import gelus_needed, unused_tensors
from vconv.convert.ascend import operators as cann
from vconv.convert.ascend.fusions import table as fusions
from vconv.convert.graphs.layer_norms import layer_norms
from vconv.convert.graphs.moves import readers
from vconv.convert.graphs.passes.base import FOLD_ELEMENTS
from vconv.convert.graphs.passes.point_at_weights import DTYPES
from vconv.convert.graphs.passes.remove_unused import unused
from vconv.convert.graphs.schemas import misfit
from vconv.convert.network import Network
from vconv.disk import own_folders
from vconv.printable import shortened
from vconv.runtime.engines.runnable import broken_bound
from vconv.types import Check, Status
from vconv.validators.checks.final_norm import wrongly_normed
from vconv.validators.checks.inspected_graph import InspectedGraph

INLINE_ELEMENTS = FOLD_ELEMENTS
"""Size of the greatest constant that a graph file itself may contain: shapes, scales and RoPE tables."""
UNCERTAIN = frozenset({"If", "Loop", "Range", "Resize", "Scan", "SplitToSequence", "Upsample"})
"""Operators that a graph for images of any size does without: OpenVINO computes an antialiased ``Resize``
wrongly, without a word, and refuses sequences; NPU compilers avoid the others."""


@dataclass(frozen=True)
class Wrong:
    """What is wrong with a graph.

    Args:
        what: in words.
        fault: the class of the fault.
    """

    what: str
    fault: str = "graph"


def _valid(subject: InspectedGraph) -> Wrong | None:
    try:
        if not _is_linked(subject):
            onnx.checker.check_model(str(subject.path))
    except (onnx.checker.ValidationError, ValueError) as error:
        return Wrong(shortened(str(error)))
    wrong = misfit(onnx.load(subject.path, load_external_data=False))
    return Wrong(shortened(wrong)) if wrong else None


def _is_linked(subject: InspectedGraph) -> bool:
    """Return whether the weights file is a link, as in a hub's cache, which the checker would refuse."""
    return subject.weights is not None and subject.weights.is_symlink()


def _exact_gelu(subject: InspectedGraph) -> Wrong | None:
    operators = subject.operators
    wanted = gelus_needed(subject.network)
    if operators.get("Gelu") or operators.get("Erf", 0) != wanted:
        found = f"{operators.get('Erf', 0)} Erf and {operators.get('Gelu', 0)} Gelu"
        return Wrong(f"{found}, expected {wanted} and 0", "activation")
    return None


def _unfused(subject: InspectedGraph) -> Wrong | None:
    for name, matches in fusions.harmful(subject.model).items():
        fusion, place = fusions.FUSIONS[name], matches[0].place
        what = f"{name} of CANN puts {fusion.becomes} in {len(matches)} places, such as {place}"
        kind = "activation" if fusion.becomes == fusions.GELU else "graph"
        return Wrong(f"{what}: {fusion.numbers}", kind)
    return None


def _harmless_fusions(subject: InspectedGraph) -> str:
    """Name the passes that would fire, all of which keep the function."""
    found = ", ".join(f"{name} in {len(places)}" for name, places in fusions.firing(subject.model).items())
    return f"no pass of CANN changes a result; places where one rounds otherwise: {found}" if found else ""


def _fused_by_right(subject: InspectedGraph) -> str:
    if not subject.old and subject.network.known.exact_gelu:
        return ""
    return "version 0.1.0 made this graph" if subject.old else "its library wrote it"


def _all_used(subject: InspectedGraph) -> Wrong | None:
    # The rule of the weights finds a weight that is not used.
    found = [name for name in unused(subject.model) if name not in subject.entries]
    return Wrong(f"no node uses {len(found)} constants, such as {found[0]}") if found else None


def _unused_by_right(subject: InspectedGraph) -> str:
    return "version 0.1.0 made this graph; an engine warns of them" if subject.old else ""


def _never(subject: InspectedGraph) -> str:
    return ""


def _epsilon(subject: InspectedGraph) -> Wrong | None:
    """Check the epsilon of every LayerNorm in the graph: its effect on the output is too small to measure.

    A LayerNorm that is not recognised would hide its epsilon. So whatever computes with the scale of a
    LayerNorm must be part of one that is recognised. The rule of the weights sees to it that the graph
    computes with all of them.
    """
    wanted = subject.network.numbers.epsilon
    norms = layer_norms(subject.model)
    # Attributes and constants are float32.
    wrong = [norm.epsilon for norm in norms if not math.isclose(norm.epsilon, wanted, rel_tol=1e-6)]
    if wrong or not norms:
        given = f"{len(wrong)} of {len(norms)} LayerNorms with {wrong[0]:.3g}" if wrong else "no LayerNorm"
        return Wrong(f"{given}, expected {wanted:.3g} in all", "epsilon")
    known, weights = {norm.nodes[-1] for norm in norms}, subject.model.graph.initializers
    hidden = [key for key in _scales(subject.network) if key in weights and {*readers(weights[key])} - known]
    if hidden:
        what = f"what computes with {hidden[0]} is no LayerNorm that is known"
        return Wrong(f"{what}, in {len(hidden)} places: its epsilon is not known", "epsilon")
    return None


def _scales(network: Network) -> list[str]:
    """List the keys on disk of the scales of all LayerNorms."""
    found = network.tensors().values()
    return [network.stored_key(tensor) for tensor in found if tensor.role in NORM_ROLES]


def _final_norm(subject: InspectedGraph) -> Wrong | None:
    wrong = wrongly_normed(subject)
    return Wrong(wrong, "final norm") if wrong else None


def _interface(subject: InspectedGraph) -> Wrong | None:
    graph = subject.model.graph
    inputs, outputs = [value.name for value in graph.inputs], [value.name for value in graph.outputs]
    network, interface = subject.network, subject.interface
    shapes, taken = interface.given, interface.input
    if inputs != [taken] or outputs != list(shapes):
        lacking = shapes.keys() - set(outputs)
        fault = "registers" if lacking == {"registers"} else "output names"
        wanted = f"expected {[taken]} and {list(shapes)}"
        return Wrong(f"inputs {inputs} and outputs {outputs}, {wanted}", fault)
    expected = {**shapes, taken: interface.taken}
    values = (*graph.inputs, *graph.outputs)
    found = {value.name or "": _dimensions(value) for value in values}
    for value in values:
        name = value.name or ""
        dtype = ir.DataType.UINT8 if interface.from_images and name == taken else ir.DataType.FLOAT
        if found[name] != expected[name] or value.dtype != dtype:
            detail = f"{name} is {value.dtype} {found[name]}, expected {dtype} {expected[name]}"
            return Wrong(detail, _misshapen(found, expected, network, taken))
    return None


def _misshapen(
    found: Mapping[str, tuple[Any, ...]],
    expected: Mapping[str, tuple[Any, ...]],
    network: Network,
    taken: str,
) -> str:
    """Return the class of fault of wrong shapes; ``taken`` is the name of the input."""
    if found[taken][1:] != expected[taken][1:]:
        return "image size"
    if Counter(found.values()) == Counter(expected.values()):
        return "output names"
    if network.lack(Capability.TOKEN_GRID):
        return "graph"
    registers = network.registers
    tokens, patches = (found.get(name, ())[1:2] for name in ("last_hidden_state", "patches"))
    if tokens and patches and (tokens[0], patches[0]) != (1 + registers + patches[0], patches[0]):
        return "registers"
    return "graph"


def _dimensions(value: ir.Value) -> tuple[Any, ...]:
    return tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape or ())


def _weights(subject: InspectedGraph) -> Wrong | None:
    used, file = set(), subject.weights.name if subject.weights else ""
    for name, value in subject.model.graph.initializers.items():
        tensor = value.const_value
        if not isinstance(tensor, ir.ExternalTensor):
            if tensor is None or (subject.weights and tensor.size > INLINE_ELEMENTS):
                return Wrong(f"the weight {name} is not in {file}", subject.fault_of(name))
            continue
        entry = subject.entries.get(name)
        place = (tensor.location, tensor.offset, tensor.length, tuple(tensor.shape.numpy()))
        right = entry and (file, entry.offset, entry.nbytes, entry.shape)
        if entry is None or place != right or tensor.dtype != DTYPES[entry.dtype]:
            detail = f"the weight {name} does not point at its tensor in {file}"
            return Wrong(detail, subject.fault_of(name))
        if value.uses() or value.is_graph_output():
            used.add(name)
    spared = unused_tensors(subject.network)
    unused = [name for name in subject.entries if name not in used and name not in spared]
    if unused:
        detail = f"the graph does not use {len(unused)} weights, such as {unused[0]}"
        return Wrong(detail, subject.fault_of(unused[0]))
    return None


def _at_any_size(subject: InspectedGraph) -> Wrong | None:
    found = sorted(name for name in subject.operators if name in UNCERTAIN or name.startswith("Sequence"))
    if found:
        return Wrong(f"operators that engines compute differently: {', '.join(found)}", "resampling")
    return None


def _too_new(subject: InspectedGraph) -> Wrong | None:
    opset, ir_version = subject.model.opset_imports.get("", 0), subject.model.ir_version
    if opset > cann.GREATEST_OPSET or ir_version > cann.GREATEST_IR_VERSION:
        wanted = f"at most {cann.GREATEST_OPSET} and {cann.GREATEST_IR_VERSION}"
        return Wrong(f"opset {opset} and IR {ir_version}, expected {wanted}")
    return None


def _for_npu(subject: InspectedGraph) -> Wrong | None:
    if wrong := _too_new(subject):
        return wrong
    model = subject.model
    domains = {*model.opset_imports, *(node.domain for node in model.graph.all_nodes())} - {"", "ai.onnx"}
    if domains or model.functions:
        return Wrong(f"operators of {sorted(domains) or 'functions'}, expected only ONNX's own")
    unsupported = sorted(subject.operators.keys() - cann.SUPPORTED)
    return Wrong(f"operators that CANN does not list: {', '.join(unsupported)}") if unsupported else None


def _unverified(subject: InspectedGraph) -> str:
    """Return why a graph may have operators that are not listed: it is quantised, and no list has those."""
    unlisted = subject.operators.keys() - cann.SUPPORTED
    return cann.UNVERIFIED if _too_new(subject) is None and unlisted <= cann.QUANTISING else ""


def _no_traces(subject: InspectedGraph) -> Wrong | None:
    model, graph = subject.model, subject.model.graph
    if (model.producer_name, graph.name) != ("vconv", "vconv"):
        return Wrong(f"produced by {model.producer_name!r} as {graph.name!r}, expected 'vconv'")
    nodes = list(graph.all_nodes())
    values = [
        *graph.inputs,
        *graph.initializers.values(),
        *(value for node in nodes for value in node.outputs),
    ]
    constants = [value.const_value for value in values if value.const_value is not None]
    holders: list[Any] = [model, graph, *nodes, *values, *constants]
    noted = sum(bool(holder.metadata_props or holder.doc_string) for holder in holders)
    if noted:
        return Wrong(f"{noted} parts contain metadata of the exporting machine")
    content = subject.path.read_bytes()
    places = (*(os.fsencode(folder) for folder in own_folders()), b"site-packages")
    named = [os.fsdecode(place) for place in places if place in content]
    return Wrong(f"a path of the exporting machine is inside: {named[0]}") if named else None


def _without_gelu(subject: InspectedGraph) -> str:
    return "" if subject.network.known.exact_gelu else "the network has no exact GELU, and its graph no GELU"


@dataclass(frozen=True)
class GraphRule:
    """One property that a graph must have.

    Args:
        wrong: returns what is wrong; None if nothing is.
        meaning: the text of the check if nothing is wrong.
        static_only: whether the rule is only for static graphs, the ones for an NPU.
        any_size_only: whether the rule is only for graphs that take images of any size.
        layers_only: whether the rule is only for graphs with outputs of single blocks.
        needs: the features of the network that must be known.
        spares: returns why a graph may break the rule; empty if it may not.
        otherwise: returns the text for a network that the meaning does not suit; empty if it does.
    """

    wrong: Callable[[InspectedGraph], Wrong | None]
    meaning: str
    static_only: bool = False
    any_size_only: bool = False
    layers_only: bool = False
    needs: tuple[Capability, ...] = ()
    spares: Callable[[InspectedGraph], str] = _never
    otherwise: Callable[[InspectedGraph], str] = _never


RULES: Mapping[str, GraphRule] = {
    "valid ONNX": GraphRule(
        _valid, "onnx.checker accepts it, and its opset has every operator with these types"
    ),
    "exact GELU": GraphRule(_exact_gelu, "every GELU is spelled out with Erf", otherwise=_without_gelu),
    "fusions": GraphRule(
        _unfused,
        "no published pass of CANN's compiler fires in it",
        spares=_fused_by_right,
        otherwise=_harmless_fusions,
    ),
    "epsilon": GraphRule(
        _epsilon, "every LayerNorm has the configuration's epsilon", needs=(Capability.ROLES,)
    ),
    "final norm": GraphRule(
        _final_norm,
        "the outputs of single blocks have the final norm, or none, as their names say",
        layers_only=True,
    ),
    "inputs and outputs": GraphRule(_interface, "names, types and shapes are as declared"),
    "weights": GraphRule(_weights, "every weight is used, and points at its own tensor in its weights file"),
    "no unused constant": GraphRule(
        _all_used, "every constant is used, so that engines load it silently", spares=_unused_by_right
    ),
    "NPU operators": GraphRule(
        _for_npu,
        "CANN supports its operators, opset and IR version",
        static_only=True,
        spares=_unverified,
    ),
    "any size": GraphRule(
        _at_any_size, "no operator of it depends on how an engine resamples or counts", any_size_only=True
    ),
    "no traces": GraphRule(_no_traces, "it contains no data of the exporting machine"),
}
"""The rules for every graph."""


def check_graph(subject: InspectedGraph) -> list[Check]:
    """Check a graph against every rule that applies to it."""
    applying = {
        name: rule
        for name, rule in RULES.items()
        if (subject.batch is not None or not rule.static_only)
        and (subject.any_size or not rule.any_size_only)
        and (layers_of(subject.network) or not rule.layers_only)
    }
    return [_checked(subject, f"{subject.name}: {name}", rule) for name, rule in applying.items()]


def _checked(subject: InspectedGraph, name: str, rule: GraphRule) -> Check:
    if lack := subject.network.lack(*rule.needs):
        return Check(name, Status.SKIPPED, lack)
    wrong = rule.wrong(subject)
    if wrong is None:
        return Check(name, Status.PASSED, rule.otherwise(subject) or rule.meaning)
    if spared := rule.spares(subject):
        return Check(name, Status.SKIPPED, f"{wrong.what}: {spared}")
    return Check(name, Status.FAILED, wrong.what, wrong.fault)


def check_bounds(path: Path, record: VariantRecord, domains: frozenset[str]) -> Check:
    """Check the bounds that a graph must keep before it is looked at or run.

    Args:
        path: its file.
        record: its record in the manifest.
        domains: the operator sets that its engine runs.
    """
    bound, broken = broken_bound(path, record, domains)
    if broken:
        return Check(f"{record.path}: {bound}", Status.FAILED, broken, "graph")
    return Check(f"{record.path}: bounds", Status.PASSED, "it only computes, as the manifest describes it")


def declared(value: ir.Value) -> TensorRecord:
    """Return what a graph declares of one of its inputs or outputs."""
    assert value.name and value.shape is not None and value.dtype is not None
    shape = tuple(dim if isinstance(dim, int) else str(dim.value) for dim in value.shape)
    return TensorRecord(name=value.name, dtype=str(value.dtype.numpy()), shape=shape)


def check_contract(subject: InspectedGraph, contract: ContractRecord) -> Check:
    """Compare what a graph declares with its contract in the manifest: names, types and shapes."""
    graph, name = subject.model.graph, f"{subject.name}: contract"
    if wrong := _interface(subject):
        return Check(name, Status.SKIPPED, f"its inputs and outputs are wrong in themselves: {wrong.what}")
    found = [declared(value) for value in (*graph.inputs, *graph.outputs)]
    expected = [contract.input, *contract.outputs.values()]
    differing = [one for one in found if one not in expected] or [one for one in expected if one not in found]
    if differing:
        one = differing[0]
        detail = f"{one.name}, {one.dtype} {list(one.shape)}, differs between the manifest and the graph"
        return Check(name, Status.FAILED, detail, "graph")
    return Check(name, Status.PASSED, "inputs and outputs are those of the manifest")
