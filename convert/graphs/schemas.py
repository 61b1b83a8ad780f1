"""Whether a graph keeps to the opset that it declares, by ONNX's own schemas."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import ModelProto, TensorProto, defs
from onnx.external_data_helper import uses_external_data

_ONNX = ("", "ai.onnx")


def misfit(model: ModelProto) -> str:
    """Return in one line why a graph does not fit the opset that it declares; empty if it does.

    ONNX's checker compares each operator, its attributes and the number of its inputs and outputs with the
    schema of the declared opset. The types of the inputs are compared here, where the graph declares them:
    ONNX's strict inference, which compares them too, also judges shapes, and differently in each version of
    ONNX. The IR version must be one that can hold the opset.

    Args:
        model: the graph. Weights in another file are not read, and the file does not have to exist.
    """
    least = onnx.helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True)
    if model.ir_version < least:
        declared = ", ".join(str(entry.version) for entry in model.opset_import)
        return f"opset {declared} needs IR version {least}, and the graph declares {model.ir_version}"
    try:
        onnx.checker.check_model(_without_weights(model))
    except (onnx.checker.ValidationError, ValueError) as error:
        return " ".join(str(error).split())
    return next(_mistyped(model), "")


def _mistyped(model: ModelProto) -> Iterator[str]:
    """Yield each node that takes a type that its operator does not take, or two that should be one."""
    graph = model.graph
    opset = next((entry.version for entry in model.opset_import if entry.domain in _ONNX), None)
    if opset is None:
        return
    values = (*graph.input, *graph.value_info, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        if node.domain not in _ONNX:
            continue
        schema = defs.get_schema(node.op_type, opset)
        allowed = {one.type_param_str: one.allowed_type_strs for one in schema.type_constraints}
        bound: dict[str, str] = {}
        for place, name in enumerate(node.input):
            formal = schema.inputs[min(place, len(schema.inputs) - 1)]
            if not types.get(name):
                continue
            given = f"tensor({TensorProto.DataType.Name(types[name]).lower()})"
            same = bound.setdefault(formal.type_str, given) if formal.is_homogeneous else given
            if given not in allowed.get(formal.type_str, [formal.type_str]) or given != same:
                yield f"{node.op_type} ({node.name}) of opset {opset} takes no {given} as its {formal.name}"


def _without_weights(model: ModelProto) -> ModelProto:
    """Return a copy of a graph in which weights in another file are inputs, so that nothing reads them."""
    copy = ModelProto()
    copy.CopyFrom(model)
    external = [tensor for tensor in copy.graph.initializer if uses_external_data(tensor)]
    for tensor in external:
        copy.graph.input.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
        copy.graph.initializer.remove(tensor)
    return copy
