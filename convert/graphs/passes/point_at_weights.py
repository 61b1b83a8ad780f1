"""Point a graph's weights into the checkpoint file, by name, offset and length.

Case 1: an initializer without data whose name maps to a tensor of the file: it becomes external, under
        the tensor's own name.
Case 2: one whose name maps to nothing: an error, since its values exist nowhere.
Case 3: one whose shape is not the tensor's: an error.
Case 4: one whose type is not the tensor's: an error.
Case 5: an initializer with data (a constant of the graph): left as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_ir as ir

from vconv.convert.files.safetensors_file import TensorEntry
from vconv.convert.graphs.passes.base import Condition, Pass, PassContext

DTYPES = {"F32": ir.DataType.FLOAT, "F16": ir.DataType.FLOAT16, "BF16": ir.DataType.BFLOAT16}


def forget_weights(graph: ir.Graph, is_weight: Callable[[str], bool]) -> None:
    """Take the (empty) data off the weights, so that no optimiser tries to read it."""
    for name, value in graph.initializers.items():
        if is_weight(name):
            value.const_value = None


def point_at_weights(
    graph: ir.Graph, entries: Mapping[str, TensorEntry], stored_key: Callable[[str], str]
) -> bool:
    """Give every initializer without data its place in the weights file.

    Args:
        graph: the graph to change.
        entries: the weights file's header.
        stored_key: from an initializer's name to its tensor's name in the file.

    Returns:
        Whether there was one.

    Raises:
        ValueError: a weight is not in the file, or has another shape or type there.
    """
    weights = [name for name, value in graph.initializers.items() if value.const_value is None]
    for name in weights:
        key = stored_key(name)
        if key not in entries:
            raise ValueError(f"the graph's weight {name} is not in the weights file as {key}")
        entry, value = entries[key], graph.initializers.pop(name)
        if value.shape is None or tuple(value.shape.numpy()) != entry.shape:
            raise ValueError(
                f"the graph's weight {name} is {value.shape}, {key} in the file is {entry.shape}"
            )
        if value.dtype != DTYPES[entry.dtype]:
            raise ValueError(
                f"the graph's weight {name} is {value.dtype}, {key} in the file is {entry.dtype}"
            )
        value.name = key
        value.const_value = ir.ExternalTensor(
            location=entry.path.name,
            offset=entry.offset,
            length=entry.nbytes,
            dtype=DTYPES[entry.dtype],
            shape=ir.Shape(entry.shape),
            name=key,
            base_dir=str(entry.path.parent),
        )
        graph.register_initializer(value)
    return bool(weights)


def _run(model: ir.Model, context: PassContext) -> bool:
    return point_at_weights(model.graph, context.entries, context.stored_key)


def _without_data(model: ir.Model, context: PassContext) -> str:
    found = [name for name, value in model.graph.initializers.items() if value.const_value is None]
    return f"{len(found)} have none, such as {found[0]}" if found else ""


PASS = Pass("point-at-weights", _run, ensures=(Condition("every initializer has data", _without_data),))
