"""Whether a graph keeps to the opset that it declares, by ONNX's own schemas."""

from __future__ import annotations

import onnx
from onnx import ModelProto
from onnx.external_data_helper import uses_external_data


def misfit(model: ModelProto) -> str:
    """Return in one line why a graph does not fit the opset that it declares; empty if it does.

    ONNX's checker compares each operator, its attributes and the number of its inputs and outputs with the
    schema of the declared opset, and ONNX's strict inference compares the types of the inputs. Other checks
    compare shapes. The IR version must be one that can hold the opset.

    Args:
        model: the graph. Weights in another file are not read, and the file does not have to exist.
    """
    least = onnx.helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True)
    if model.ir_version < least:
        declared = ", ".join(str(entry.version) for entry in model.opset_import)
        return f"opset {declared} needs IR version {least}, and the graph declares {model.ir_version}"
    alone = _without_weights(model)
    try:
        onnx.checker.check_model(alone)
        onnx.shape_inference.infer_shapes(_without_shapes(alone), check_type=True, strict_mode=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        return " ".join(str(error).split())
    return ""


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


def _without_shapes(model: ModelProto) -> ModelProto:
    """Return a copy of a graph whose values have a type, and no shape."""
    copy = ModelProto()
    copy.CopyFrom(model)
    for value in (*copy.graph.input, *copy.graph.output, *copy.graph.value_info):
        value.type.tensor_type.ClearField("shape")
    return copy
