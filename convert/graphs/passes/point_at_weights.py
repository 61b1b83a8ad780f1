"""Make a graph's weights refer to the checkpoint file, by name, offset and length.

Case 1: an initializer without data whose name maps to a tensor of the file: it becomes external, and takes
        the name of the tensor.
Case 2: an initializer without data whose name maps to no tensor: an error, because it has no values.
Case 3: an initializer without data whose shape differs from the tensor's: an error.
Case 4: an initializer of float32 whose tensor is stored in float16 or bfloat16: a ``Cast`` follows it.
Case 5: an initializer without data whose type differs otherwise from the tensor's: an error.
Case 6: several initializers without data that are the rows of one tensor: the tensor, and a ``Split``.
Case 7: an initializer with data (a constant of the graph): it stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import onnx_ir as ir

from vconv.convert.files.safetensors_file import TensorEntry
from vconv.convert.graphs.passes.base import Condition, Pass, PassContext
from vconv.convert.weights.pieces import NARROW

DTYPES = {
    "F32": ir.DataType.FLOAT,
    "F16": ir.DataType.FLOAT16,
    "BF16": ir.DataType.BFLOAT16,
    "I64": ir.DataType.INT64,
    "I32": ir.DataType.INT32,
    "I8": ir.DataType.INT8,
    "BOOL": ir.DataType.BOOL,
}

WIDE = "_float32"
"""The end of the name of a weight that is stored in another type, after its ``Cast``."""


def forget_weights(graph: ir.Graph, is_weight: Callable[[str], bool]) -> None:
    """Remove the empty data of the weights, so that no optimiser tries to read them."""
    for name, value in graph.initializers.items():
        if is_weight(name):
            value.const_value = None


def point_at(value: ir.Value, entry: TensorEntry) -> bool:
    """Let a weight of a graph be a tensor of a weights file; return whether that changes its place there."""
    before, place = value.const_value, (entry.path.name, entry.offset, entry.nbytes)
    value.const_value = ir.ExternalTensor(
        *place,
        DTYPES[entry.dtype],
        shape=ir.Shape(entry.shape),
        name=value.name or "",
        base_dir=str(entry.path.parent),
    )
    value.type = ir.TensorType(DTYPES[entry.dtype])
    return not isinstance(before, ir.ExternalTensor) or place != (
        before.location,
        before.offset,
        before.length,
    )


def point_at_weights(
    graph: ir.Graph,
    entries: Mapping[str, TensorEntry],
    stored_key: Callable[[str], str],
    divided: Iterable[Mapping[str, int]] = (),
) -> bool:
    """Make every initializer without data refer to its tensor in the weights file.

    Args:
        graph: the graph to change.
        entries: the weights file's header.
        stored_key: returns the name of the tensor in the file for the name of an initializer.
        divided: initializers that are the rows of one tensor, in order, each with their number.

    Returns:
        Whether there was such an initializer.

    Raises:
        ValueError: a weight is not in the file, or has another shape or type there.
    """
    for parts in divided:
        _join(graph, parts)
    weights = [name for name, value in graph.initializers.items() if value.const_value is None]
    casts = []
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
            if value.dtype is not ir.DataType.FLOAT or entry.dtype not in NARROW:
                raise ValueError(
                    f"the graph's weight {name} is {value.dtype}, {key} in the file is {entry.dtype}"
                )
            wide, value = value, ir.Value(name=key, shape=value.shape)
            value.type = ir.TensorType(DTYPES[entry.dtype])
            cast = ir.node("Cast", [value], {"to": int(ir.DataType.FLOAT)}, name=f"{key}{WIDE}")
            (wider,) = cast.outputs
            wider.name, wider.shape, wider.type = f"{key}{WIDE}", wide.shape, wide.type
            ir.convenience.replace_all_uses_with(wide, wider)
            casts.append(cast)
        value.name = key
        point_at(value, entry)
        graph.register_initializer(value)
    if casts:
        graph.insert_before(graph[0], casts)
    return bool(weights)


def _join(graph: ir.Graph, parts: Mapping[str, int]) -> None:
    """Make one initializer of several, under the name of the first, and divide it by a ``Split``."""
    found = {name: graph.initializers.pop(name) for name in parts if name in graph.initializers}
    if not found:
        return
    name, first = next(iter(found.items()))
    assert first.shape is not None
    rest = first.shape.numpy()[1:]
    whole = ir.Value(name=name, shape=ir.Shape([sum(parts.values()), *rest]), type=first.type)
    rows = ir.tensor([*parts.values()], ir.DataType.INT64, name=f"{name}_rows")
    sizes = ir.Value(
        name=rows.name, shape=ir.Shape([len(parts)]), type=ir.TensorType(rows.dtype), const_value=rows
    )
    split = ir.node("Split", [whole, sizes], {"axis": 0}, num_outputs=len(parts), name=f"{name}_split")
    for output, part in zip(split.outputs, parts, strict=True):
        output.name, output.type = f"{part}_of_{len(parts)}", first.type
        output.shape = ir.Shape([parts[part], *rest])
        if part in found:
            ir.convenience.replace_all_uses_with(found[part], output)
    graph.initializers[name] = whole
    graph.register_initializer(sizes)
    graph.insert_before(graph[0], split)


def _run(model: ir.Model, context: PassContext) -> bool:
    return point_at_weights(model.graph, context.entries, context.stored_key, context.divided.values())


def _without_data(model: ir.Model, context: PassContext) -> str:
    found = [name for name, value in model.graph.initializers.items() if value.const_value is None]
    return f"{len(found)} have no data, such as {found[0]}" if found else ""


PASS = Pass("point-at-weights", _run, ensures=(Condition("every initializer has data", _without_data),))
