from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir.passes.common import RemoveUnusedNodesPass

from vconv.artifact.artifact import Artifact
from vconv.artifact.manifest import Manifest
from vconv.convert.graphs.passes.lower_opset import lower_opset
from vconv.types import WEIGHTS_FILE, Status
from vconv.validators.checks.graphs import (
    INLINE_ELEMENTS,
    RULES,
    check_contract,
    check_graph,
)
from vconv.validators.checks.inspected_graph import InspectedGraph, open_graph
from vconv.validators.faults.classes import CLASSES

DYNAMIC, STATIC = "model.onnx", "model.npu.onnx"
NORM = "LayerNormalization"


def nodes(model: ir.Model, operator: str) -> Iterator[ir.Node]:
    return (node for node in model.graph if node.op_type == operator)


def weight(model: ir.Model, place: int) -> ir.Value:
    """Return the weight of the first, second, ... normalisation: all have one shape."""
    found = list(nodes(model, NORM))[place].inputs[1]
    assert found is not None and isinstance(found.const_value, ir.ExternalTensor)
    return found


def moved(tensor: ir.TensorProtocol | None, location: str, offset: int) -> ir.ExternalTensor:
    assert isinstance(tensor, ir.ExternalTensor)
    return ir.ExternalTensor(
        location,
        offset,
        tensor.length,
        tensor.dtype,
        shape=tensor.shape,
        name=tensor.name or "",
        base_dir="/",
    )


def point_at_another_tensor(model: ir.Model) -> None:
    first, second = weight(model, 0), weight(model, 1)
    assert isinstance(second.const_value, ir.ExternalTensor)
    first.const_value = moved(first.const_value, WEIGHTS_FILE, second.const_value.offset or 0)


def point_between_tensors(model: ir.Model) -> None:
    value = weight(model, 0)
    assert isinstance(value.const_value, ir.ExternalTensor)
    value.const_value = moved(value.const_value, WEIGHTS_FILE, (value.const_value.offset or 0) + 4)


def point_at_another_file(model: ir.Model) -> None:
    value = weight(model, 0)
    assert isinstance(value.const_value, ir.ExternalTensor)
    value.const_value = moved(value.const_value, "golden/golden.safetensors", value.const_value.offset or 0)


def embed(model: ir.Model) -> None:
    value = weight(model, 0)
    assert value.const_value is not None and value.name
    value.const_value = ir.tensor(np.ones(value.const_value.shape.numpy(), np.float32), name=value.name)


def embed_something_large(model: ir.Model) -> None:
    value = ir.Value(
        name="large", const_value=ir.tensor(np.zeros(INLINE_ELEMENTS + 1, np.float32), name="large")
    )
    model.graph.register_initializer(value)
    copy = ir.node("Identity", [value])
    copy.outputs[0].name = "large_copy"
    model.graph.append(copy)


def share_a_weight(model: ir.Model) -> None:
    """Use one block's weight in another too, and leave that one's own out."""
    kept, lost = weight(model, 0), weight(model, 1)
    lost.replace_all_uses_with(kept)
    model.graph.initializers.pop(lost.name or "")


def share_a_weight_and_keep_the_unused_one(model: ir.Model) -> None:
    weight(model, 1).replace_all_uses_with(weight(model, 0))


def bake_a_weight_into_a_constant(model: ir.Model) -> None:
    """Compute with numbers that the graph holds itself, the weight still listed and used by nothing."""
    value = weight(model, 0)
    assert value.const_value is not None
    baked = ir.node(
        "Constant", [], {"value": ir.tensor(np.ones(value.const_value.shape.numpy(), np.float32))}
    )
    baked.outputs[0].name = "baked"
    value.replace_all_uses_with(baked.outputs[0])
    model.graph.insert_before(model.graph[0], baked)


def spell_one_gelu_with_tanh(model: ir.Model) -> None:
    next(nodes(model, "Erf")).op_type = "Tanh"


def use_the_gelu_operator(model: ir.Model) -> None:
    """Replace x * (1 + erf(x / sqrt(2))) / 2 by the operator, in its tanh form."""
    erf = next(nodes(model, "Erf"))
    (scaled,) = (value.producer() for value in erf.inputs if value)
    (added,) = (use.node for use in erf.outputs[0].uses())
    (product,) = (use.node for use in added.outputs[0].uses())
    assert scaled is not None and scaled.inputs[0] is not None
    gelu = ir.node("Gelu", [scaled.inputs[0]], {"approximate": "tanh"})
    gelu.outputs[0].name = "tanh_gelu"
    product.outputs[0].replace_all_uses_with(gelu.outputs[0])
    model.graph.insert_after(product, gelu)
    model.graph.remove([product, added, erf], safe=False)
    model.opset_imports[""], model.ir_version = 20, 9


def divide_before_erf(model: ir.Model) -> None:
    """Spell the first GELU as version 0.1.0 did: x / sqrt(2) in place of x * (1 / sqrt(2))."""
    scaled = next(nodes(model, "Erf")).inputs[0]
    product = scaled.producer() if scaled is not None else None
    assert product is not None and product.op_type == "Mul"
    root = ir.Value(name="root", const_value=ir.tensor(np.float32(np.sqrt(2)), name="root"))
    model.graph.register_initializer(root)
    product.op_type = "Div"
    product.replace_input_with(1, root)


def leave_a_constant(model: ir.Model) -> None:
    value = ir.Value(name="left", const_value=ir.tensor(np.zeros(1, np.float32), name="left"))
    model.graph.register_initializer(value)


def add_the_gelu_operator(model: ir.Model) -> None:
    model.opset_imports[""], model.ir_version = 20, 9
    add_a_node(model, "Gelu")


def set_epsilon(node: ir.Node) -> None:
    node.attributes["epsilon"] = ir.AttrFloat32("epsilon", 3e-5)


def hide_a_norm(model: ir.Model) -> None:
    """Spell LayerNorms out; give one another epsilon, and write its root as a power."""
    lower_opset(model, 13)
    RemoveUnusedNodesPass()(model)
    root = next(nodes(model, "Sqrt"))
    added = root.inputs[0].producer() if root.inputs[0] is not None else None
    assert added is not None
    for place, (name, number) in enumerate({"half": 0.5, "other": 3e-5}.items()):
        value = ir.Value(name=name, const_value=ir.tensor(np.float32(number), name=name))
        model.graph.register_initializer(value)
        if place:
            added.replace_input_with(1, value)
    power = ir.node("Pow", [root.inputs[0], model.graph.initializers["half"]])
    power.outputs[0].name = "root"
    root.outputs[0].replace_all_uses_with(power.outputs[0])
    model.graph.insert_after(root, power)
    model.graph.remove(root, safe=False)
    RemoveUnusedNodesPass()(model)


def swap_outputs(model: ir.Model) -> None:
    outputs = model.graph.outputs
    outputs[0], outputs[1] = outputs[1], outputs[0]


def set_dimension(model: ir.Model, axis: int, dimension: int | str) -> None:
    shape = model.graph.inputs[0].shape
    assert shape is not None
    dimensions: list[int | ir.SymbolicDim] = list(shape)
    dimensions[axis] = dimension if isinstance(dimension, int) else ir.SymbolicDim(dimension)
    model.graph.inputs[0].shape = ir.Shape(dimensions)


def enlarge(model: ir.Model) -> None:
    """Declare images of twice the height and width, and four times the patches, throughout."""
    graph = model.graph
    _, _, height, width = graph.inputs[0].shape or (None, None, None, None)
    assert isinstance(height, int) and isinstance(width, int)
    patches = next(value for value in graph.outputs if value.name == "patches").shape
    assert patches is not None and isinstance(patches[1], int)
    set_dimension(model, 2, 2 * height)
    set_dimension(model, 3, 2 * width)
    for value in graph.outputs:
        if value.name in ("patches", "last_hidden_state"):
            assert value.shape is not None and isinstance(value.shape[1], int)
            first, tokens, channels = value.shape
            value.shape = ir.Shape([first, tokens + 3 * patches[1], channels])


def add_a_node(model: ir.Model, operator: str) -> None:
    node = ir.node(operator, [model.graph.inputs[0]])
    node.outputs[0].name = "added"
    model.graph.append(node)


def declare(model: ir.Model, opset: int) -> None:
    model.opset_imports[""] = opset


def allow_zero_at_13(model: ir.Model) -> None:
    """Declare opset 13 and spell LayerNorms out, but let a Reshape have the attribute of opset 14."""
    lower_opset(model, 13)
    RemoveUnusedNodesPass()(model)
    next(nodes(model, "Reshape")).attributes["allowzero"] = ir.AttrInt64("allowzero", 1)


def add_a_root_of_whole_numbers(model: ir.Model) -> None:
    value = ir.Value(name="whole", const_value=ir.tensor(np.ones(1, np.int64), name="whole"))
    model.graph.register_initializer(value)
    root = ir.node("Sqrt", [value])
    root.outputs[0].name = "root_of_whole"
    model.graph.append(root)


def unsort(model: ir.Model) -> None:
    first = model.graph[0]
    model.graph.remove(first)
    model.graph.append(first)


def note(holder: ir.Model | ir.Graph | ir.Node | ir.Value) -> None:
    holder.metadata_props["pkg.torch.onnx.stack_trace"] = 'File "/home/someone/model.py", line 3'


def document(holder: ir.Model | ir.Graph | ir.Node | ir.Value) -> None:
    holder.doc_string = 'File "/home/someone/model.py", line 3'


@dataclass(frozen=True)
class Mutation:
    """What makes a good graph a bad one.

    Args:
        rule: the rule that must catch it.
        file: the graph.
        mutate: changes it in place.
        alone: whether no other rule catches it.
        fault: the class of fault that the rule must name.
    """

    rule: str
    file: str
    mutate: Callable[[ir.Model], object]
    alone: bool = True
    fault: str = "graph"


MUTATIONS = {
    "an operator that does not exist": Mutation("valid ONNX", DYNAMIC, lambda m: add_a_node(m, "Nonsense")),
    "nodes in the wrong order": Mutation("valid ONNX", DYNAMIC, unsort),
    "an opset that lacks an operator": Mutation("valid ONNX", STATIC, lambda m: declare(m, 16)),
    "an opset that lacks an attribute": Mutation("valid ONNX", STATIC, allow_zero_at_13),
    "an operator of a type that it does not take": Mutation(
        "valid ONNX", STATIC, add_a_root_of_whole_numbers
    ),
    "an IR version that cannot hold the opset": Mutation(
        "valid ONNX", STATIC, lambda m: setattr(m, "ir_version", 7)
    ),
    "one GELU spelled with Tanh": Mutation(
        "exact GELU", DYNAMIC, spell_one_gelu_with_tanh, fault="activation"
    ),
    "one GELU as an operator": Mutation("exact GELU", DYNAMIC, use_the_gelu_operator, fault="activation"),
    "a GELU operator more": Mutation("exact GELU", DYNAMIC, add_the_gelu_operator, fault="activation"),
    "one GELU that divides by sqrt(2)": Mutation("fusions", DYNAMIC, divide_before_erf, fault="activation"),
    "a constant that no node uses": Mutation("no unused constant", DYNAMIC, leave_a_constant),
    "one LayerNorm with another epsilon": Mutation(
        "epsilon", DYNAMIC, lambda m: set_epsilon(next(nodes(m, "LayerNormalization"))), fault="epsilon"
    ),
    "every LayerNorm with another epsilon": Mutation(
        "epsilon",
        STATIC,
        lambda m: [set_epsilon(node) for node in nodes(m, "LayerNormalization")],
        fault="epsilon",
    ),
    "one LayerNorm that is hidden, with another epsilon": Mutation(
        "epsilon", STATIC, hide_a_norm, fault="epsilon"
    ),
    "a renamed output": Mutation(
        "inputs and outputs",
        DYNAMIC,
        lambda m: setattr(m.graph.outputs[0], "name", "other"),
        fault="output names",
    ),
    "a renamed input": Mutation(
        "inputs and outputs", DYNAMIC, lambda m: setattr(m.graph.inputs[0], "name", "x"), fault="output names"
    ),
    "outputs in another order": Mutation("inputs and outputs", DYNAMIC, swap_outputs, fault="output names"),
    "an output less": Mutation(
        "inputs and outputs", DYNAMIC, lambda m: m.graph.outputs.pop(), fault="output names"
    ),
    "a dynamic graph with its batch fixed": Mutation(
        "inputs and outputs", DYNAMIC, lambda m: set_dimension(m, 0, 2)
    ),
    "a static graph with another batch": Mutation(
        "inputs and outputs", STATIC, lambda m: set_dimension(m, 0, 1)
    ),
    "a static graph with a dynamic batch": Mutation(
        "inputs and outputs", STATIC, lambda m: set_dimension(m, 0, "batch")
    ),
    "a graph of another size": Mutation("inputs and outputs", DYNAMIC, enlarge, fault="image size"),
    "a weight at another tensor's offset": Mutation("weights", DYNAMIC, point_at_another_tensor),
    "a weight between two tensors": Mutation("weights", DYNAMIC, point_between_tensors),
    "a weight in another file": Mutation("weights", DYNAMIC, point_at_another_file),
    "a weight that is embedded": Mutation("weights", DYNAMIC, embed),
    "something large that is embedded": Mutation("weights", DYNAMIC, embed_something_large),
    "a weight that is left out": Mutation("weights", DYNAMIC, share_a_weight),
    "a weight that no node uses": Mutation("weights", DYNAMIC, share_a_weight_and_keep_the_unused_one),
    "a weight baked into a constant": Mutation("weights", DYNAMIC, bake_a_weight_into_a_constant),
    "opset 20 in a static graph": Mutation(
        "NPU operators", STATIC, lambda m: m.opset_imports.update({"": 20}), alone=False
    ),
    "IR 9 in a static graph": Mutation("NPU operators", STATIC, lambda m: setattr(m, "ir_version", 9)),
    "an operator that CANN does not list": Mutation(
        "NPU operators", STATIC, lambda m: add_a_node(m, "Bernoulli")
    ),
    "a note on the model": Mutation("no traces", DYNAMIC, note),
    "a note on the graph": Mutation("no traces", DYNAMIC, lambda m: note(m.graph)),
    "a note on a node": Mutation("no traces", DYNAMIC, lambda m: note(m.graph[5])),
    "a note on a weight": Mutation("no traces", DYNAMIC, lambda m: note(weight(m, 0))),
    "a note on an output": Mutation("no traces", DYNAMIC, lambda m: note(m.graph.outputs[0])),
    "a note on a value in between": Mutation("no traces", DYNAMIC, lambda m: note(m.graph[5].outputs[0])),
    "a doc string on the model": Mutation("no traces", DYNAMIC, document),
    "a doc string on the graph": Mutation("no traces", DYNAMIC, lambda m: document(m.graph)),
    "a doc string on a node": Mutation("no traces", DYNAMIC, lambda m: document(m.graph[5])),
}
"""Faults of graphs, each with the rule that is there to catch it. A new rule needs a row."""


def reopened(folder: Path, made: Manifest, file: str) -> InspectedGraph:
    net = Artifact.open(folder).network
    (batch,) = (record.batch for record in made.variants if record.path == file)
    return open_graph(folder, file, WEIGHTS_FILE, net, made.size, batch)


def failed(subject: InspectedGraph) -> set[str]:
    prefix = f"{subject.path.name}: "
    return {
        check.name.removeprefix(prefix) for check in check_graph(subject) if check.status is Status.FAILED
    }


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_fault_is_caught_by_its_rule(name: str, copied: Path, made: Manifest) -> None:
    mutation = MUTATIONS[name]
    path = copied / mutation.file
    model = ir.load(path)
    mutation.mutate(model)
    ir.save(model, path)
    subject = reopened(copied, made, mutation.file)
    caught = failed(subject)
    assert mutation.rule in caught
    faults = {check.name: check.fault for check in check_graph(subject)}
    found = faults[f"{mutation.file}: {mutation.rule}"]
    assert found == mutation.fault or (mutation.rule == "weights" and found in CLASSES)
    assert caught == {mutation.rule} or not mutation.alone


OF_ONE_SIZE = [name for name, rule in RULES.items() if not rule.any_size_only and not rule.layers_only]
"""The rules of a graph that takes images of one size; tests/core/workflows/test_any_size.py and
test_asked_outputs.py have others."""


@pytest.mark.parametrize("rule", OF_ONE_SIZE)
def test_every_rule_catches_something_that_no_other_rule_does(rule: str) -> None:
    assert any(mutation.rule == rule and mutation.alone for mutation in MUTATIONS.values())


@pytest.mark.parametrize("file", [DYNAMIC, STATIC])
def test_a_graph_as_exported_passes_every_rule(file: str, small_artifact: Path, made: Manifest) -> None:
    checks = check_graph(reopened(small_artifact, made, file))
    for_it = {name: RULES[name] for name in OF_ONE_SIZE if file == STATIC or not RULES[name].static_only}
    assert [check.name for check in checks] == [f"{file}: {name}" for name in for_it]
    assert {check.status for check in checks} == {Status.PASSED}
    subject = reopened(small_artifact, made, file)
    assert [check.detail for check in checks] == [
        rule.otherwise(subject) or rule.meaning for rule in for_it.values()
    ]
    (fusions,) = (check.detail for check in checks if check.name.endswith(": fusions"))
    assert "MatMulBiasAddFusionPass in " in fusions


@pytest.mark.parametrize("file", [DYNAMIC, STATIC])
def test_a_graph_that_is_saved_again_unchanged_passes_every_rule(
    file: str, copied: Path, made: Manifest
) -> None:
    ir.save(ir.load(copied / file), copied / file)
    assert not failed(reopened(copied, made, file))


@pytest.mark.parametrize("axis", [2, 3])
def test_a_static_graph_with_a_dynamic_height_or_width_is_caught(
    axis: int, copied: Path, made: Manifest
) -> None:
    model = ir.load(copied / STATIC)
    set_dimension(model, axis, "side")
    ir.save(model, copied / STATIC)
    assert failed(reopened(copied, made, STATIC))


def test_operators_are_counted_in_alphabetical_order(small_artifact: Path, made: Manifest) -> None:
    subject = reopened(small_artifact, made, DYNAMIC)
    assert list(subject.operators) == sorted(subject.operators)
    assert sum(subject.operators.values()) == len(list(subject.model.graph))
    assert subject.operators["Erf"] == subject.network.blocks
    recorded = made.variants[1].graph
    assert recorded and subject.operators == dict(recorded.operators)


def test_looking_at_a_graph_reads_no_weight(copied: Path, made: Manifest) -> None:
    subject = reopened(copied, made, DYNAMIC)
    size = (copied / WEIGHTS_FILE).stat().st_size
    first = min(entry.offset for entry in subject.entries.values())
    with (copied / WEIGHTS_FILE).open("r+b") as file:
        file.truncate(first)
        file.truncate(size)
    assert not failed(subject)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "another"},
        {"dtype": "float16"},
        {"shape": ("batch", 7)},
    ],
    ids=["name", "type", "shape"],
)
def test_a_graph_that_declares_something_else_than_its_contract_fails(
    change: dict[str, Any], small: Artifact
) -> None:
    record = small.variant("onnx-fp32")
    graph = open_graph(small.folder, record.path, record.weights, small.network, small.manifest.size, None)
    assert check_contract(graph, record.contract).status is Status.PASSED
    name, tensor = next(iter(record.contract.outputs.items()))
    outputs = {**record.contract.outputs, name: tensor.model_copy(update=change)}
    wrong = check_contract(graph, record.contract.model_copy(update={"outputs": outputs}))
    assert (wrong.status, wrong.fault) == (Status.FAILED, "graph")
    assert wrong.name == "model.onnx: contract"
