"""A graph file as it comes: what it declares, in which precision it is, and the bounds that it must keep."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from vconv.artifact.records import TensorRecord
from vconv.errors import InputError
from vconv.precisions import INT8, INT8_DYNAMIC
from vconv.runtime.engines.runnable import broken_foreign_bound, read_graph
from vconv.types import MANIFEST_FILE

SUFFIX = ".onnx"
_FOLDERS = ("", "onnx")
"""Where a folder in the form of a hub's repositories has its graphs."""
_EIGHT_BITS = frozenset(
    {
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"),
        *("QLinearMatMul", "QLinearConv", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QAttention"),
    }
)
_FOUND_BY_RUN = frozenset({"DynamicQuantizeLinear", "DynamicQuantizeMatMul"})
"""Those that find the range of what they quantise while they run."""
_FOUR_BITS = frozenset({"MatMulNBits", "MatMulBnb4", "GatherBlockQuantized"})
_FLOATS = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}
_UNKNOWN = "?"
"""What stands for an axis without a length and without a name."""


@dataclass(frozen=True)
class GraphFile:
    """A graph file.

    Args:
        path: the file.
        model: the graph, without weights that are in other files.
        inputs: the inputs that have no default.
        outputs: the outputs.
        precision: the name of the precision of most of its weights: ``fp32``, ``fp16``, ``bf16``, ``int8``,
            ``int8-dynamic`` or ``int4``.
    """

    path: Path
    model: onnx.ModelProto
    inputs: tuple[TensorRecord, ...]
    outputs: tuple[TensorRecord, ...]
    precision: str

    @property
    def image_input(self) -> TensorRecord:
        """The input that takes images.

        Raises:
            InputError: there is none, or the graph needs more than images.
        """
        images = [one for one in self.inputs if len(one.shape) == 4]
        if len(images) == 1 and len(self.inputs) == 1:
            return images[0]
        told = ", ".join(f"{one.name} {list(one.shape)}" for one in self.inputs) or "none"
        raise InputError(
            f"{self.path.name} does not take images alone",
            got=f"inputs {told}",
            expected="one input of four axes, the images",
            fix="export the graph with the images as its only input",
        )


def is_foreign(path: Path) -> bool:
    """Return whether a path is a graph, or a folder of graphs that is no artifact."""
    if path.suffix == SUFFIX and not path.is_dir():
        return True
    return path.is_dir() and not (path / MANIFEST_FILE).exists() and bool(_inside(path))


def _inside(folder: Path) -> list[Path]:
    return [
        file for name in _FOLDERS for file in sorted((folder / name).glob(f"*{SUFFIX}")) if file.is_file()
    ]


def find_graphs(path: Path) -> list[Path]:
    """List the graphs of a path: a file, or a folder in the form of a hub's repositories.

    Raises:
        InputError: there is no graph.
    """
    found = _inside(path) if path.is_dir() else [path] if path.is_file() else []
    if not found:
        raise InputError(
            f"there is no graph at {path}",
            got="a folder without graphs" if path.is_dir() else "no such file",
            expected=f"a {SUFFIX} file, or a folder with such files or with onnx/model{SUFFIX}",
            fix="check the path",
        )
    return found


def open_file(path: Path) -> GraphFile:
    """Read what a graph declares.

    Raises:
        ArtifactError: the file is not an ONNX graph.
        InputError: the graph breaks a bound that every graph must keep before it is run.
    """
    bound, broken = broken_foreign_bound(path)
    if broken:
        raise InputError(
            f"{path.name} is not run, because of its {bound}",
            got=broken,
            expected="a graph whose files are beside it",
            fix="fetch it again with all of its files, or export it again",
        )
    model = read_graph(path)
    defaults = {tensor.name for tensor in model.graph.initializer}
    given = [value for value in model.graph.input if value.name not in defaults]
    return GraphFile(
        path,
        model,
        tuple(map(_declared, given)),
        tuple(map(_declared, model.graph.output)),
        _precision(model),
    )


def _declared(value: onnx.ValueInfoProto) -> TensorRecord:
    tensor = value.type.tensor_type
    dtype = str(helper.tensor_dtype_to_np_dtype(tensor.elem_type)) if tensor.elem_type else _UNKNOWN
    shape = tuple(one.dim_value or one.dim_param or _UNKNOWN for one in tensor.shape.dim)
    return TensorRecord(name=value.name, dtype=dtype, shape=shape)


def _precision(model: onnx.ModelProto) -> str:
    operators = {node.op_type for node in model.graph.node}
    if operators & _FOUR_BITS:
        return "int4"
    if operators & _FOUND_BY_RUN:
        return INT8_DYNAMIC
    if operators & _EIGHT_BITS:
        return INT8
    elements: Counter[int] = Counter()
    for tensor in weights_of(model):
        elements[tensor.data_type] += math.prod(tensor.dims)
    kinds = {kind: elements[kind] for kind in _FLOATS if elements[kind]}
    return _FLOATS[max(kinds, key=lambda kind: kinds[kind])] if kinds else "fp32"


def weights_of(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Yield every constant of a graph: its initializers, and the values of ``Constant`` nodes."""
    yield from model.graph.initializer
    for node in model.graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    found = TensorProto()
                    found.CopyFrom(attribute.t)
                    found.name = node.output[0]
                    yield found
                elif attribute.name == "value_float":
                    yield helper.make_tensor(node.output[0], TensorProto.FLOAT, [], [attribute.f])


def external_file(tensor: TensorProto) -> str:
    """Return the file that holds a constant, relative to the folder of the graph; empty if it is inside."""
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
