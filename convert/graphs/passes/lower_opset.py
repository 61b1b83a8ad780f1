"""Write a graph in the operators of a lower opset, for NPU compilers that do not know the exporter's.

torch's exporter writes opset 18 at least, and the version converter of ONNX lacks many of the steps below
it, such as those of ``Split`` and ``LayerNormalization``. So a graph is traced at 18 and then rewritten.

Case 1: an operator that the lower opset has in the same form: it stays as it is.
Case 2: an operator that has an older form, in :data:`.OLDER_FORMS`: it is written in that form.
Case 3: any other operator: the export is refused, and names the operator and an opset that has it.
Case 4: a graph that declares the chosen opset already, or no operators of ONNX: it stays as it is.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx import defs

from vconv.convert.ascend.operators import NPU_OPSETS
from vconv.convert.graphs.passes.base import Condition, Pass, PassContext
from vconv.convert.graphs.passes.older_forms import OLDER_FORMS, NoOlderForm
from vconv.convert.graphs.passes.resampling import Builder
from vconv.convert.graphs.schemas import misfit
from vconv.errors import OpsetError

_ONNX = ("", "ai.onnx")


def lower_opset(model: ir.Model, opset: int) -> bool:
    """Write a graph in the operators of an opset, in place; return whether this changed it.

    Args:
        model: the graph.
        opset: the opset, 13 or later. A graph of this opset or a lower one is not changed.

    Raises:
        OpsetError: an operator has no form in that opset.
    """
    declared = declared_opset(model)
    if declared is None or declared <= opset:
        return False
    for node in list(model.graph.all_nodes()):
        if node.domain in _ONNX:
            _lower(node, declared, opset)
    model.opset_imports.pop("ai.onnx", None)
    model.opset_imports[""] = opset
    return True


def declared_opset(model: ir.Model) -> int | None:
    """Return the version of ONNX's own operators that a graph declares; None if it declares none of them."""
    return next((model.opset_imports[name] for name in _ONNX if name in model.opset_imports), None)


def _lower(node: ir.Node, declared: int, opset: int) -> None:
    """Write a node in its older forms, one after the other, until the opset has the form."""
    schema = defs.get_schema(node.op_type, declared)
    while schema.since_version > opset:
        since, older = schema.since_version, None
        try:
            if (node.op_type, since) not in OLDER_FORMS:
                raise NoOlderForm("has no older form")
            if _replaced(node, since, opset):
                return
            older = defs.get_schema(node.op_type, since - 1)
            _keep_only(node, schema, older)
        except NoOlderForm as reason:
            raise _refused(node, since, opset, str(reason)) from reason
        schema = older


def _replaced(node: ir.Node, since: int, opset: int) -> bool:
    """Put the older form in a node's place; return False if the node itself has that form."""
    assert isinstance(node.graph, ir.Graph)
    build = Builder(node.graph, f"{node.name or node.outputs[0].name}_opset{opset}")
    result = OLDER_FORMS[node.op_type, since](node, build)
    if result is None:
        return False
    made = [result] if isinstance(result, ir.Value) else list(result)
    outputs, last = node.outputs[: len(made)], made[0].producer()
    for before, after in zip(outputs, made, strict=True):
        after.name, after.shape, after.type = before.name, before.shape, before.type
    assert last is not None
    last.name = node.name
    ir.convenience.replace_nodes_and_values(node.graph, node, [node], build.nodes, outputs, made)
    return True


def _keep_only(node: ir.Node, newer: defs.OpSchema, older: defs.OpSchema) -> None:
    """Remove the attributes that an older schema lacks.

    Raises:
        NoOlderForm: such an attribute does not have its default, or the older schema does not take the type
            of an input.
    """
    for name in node.attributes.keys() - older.attributes.keys():
        if ir.to_proto(node.attributes[name]) != newer.attributes[name].default_value:
            raise NoOlderForm(f"has the attribute {name}")
        del node.attributes[name]
    types = {one.type_param_str: one.allowed_type_strs for one in older.type_constraints}
    for place, value in enumerate(node.inputs):
        formal = older.inputs[min(place, len(older.inputs) - 1)].type_str
        if value is not None and value.dtype is not None:
            given = f"tensor({value.dtype.name.lower()})"
            if given not in types.get(formal, [formal]):
                raise NoOlderForm(f"takes a {given}")


def _refused(node: ir.Node, since: int, opset: int, reason: str) -> OpsetError:
    enough = next(version for version in (*NPU_OPSETS, since) if version >= since)
    return OpsetError(
        f"the network cannot be written in opset {opset}",
        got=f"{node.op_type} ({node.name}), which {reason}",
        expected=f"operators that opset {opset} has",
        fix=f"use --npu-opset {enough}",
    )


def _no_opset(model: ir.Model, context: PassContext) -> str:
    return "the context has no opset" if context.opset is None else ""


def _declared(model: ir.Model, context: PassContext) -> str:
    found = declared_opset(model)
    return "" if found in (context.opset, None) else f"it declares {found}"


def _run(model: ir.Model, context: PassContext) -> bool:
    assert context.opset is not None
    return lower_opset(model, context.opset)


PASS = Pass(
    "lower-opset",
    _run,
    requires=(Condition("an opset is chosen", _no_opset),),
    ensures=(
        Condition("the graph declares the chosen opset", _declared),
        Condition(
            "every operator fits the opset's schema", lambda model, context: misfit(ir.to_proto(model))
        ),
    ),
)
