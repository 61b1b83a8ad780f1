"""Bounds that a graph file must keep before an engine opens it.

A graph is a program. An engine runs a loop without end, reads any file that the graph names, and takes any
number of nodes. Each bound is one row of the table, and every command uses the same table.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, ModelProto, TensorProto, helper
from onnx.external_data_helper import uses_external_data

from vconv.artifact.records import VariantRecord
from vconv.errors import ArtifactError, EngineError

_SIZES: Mapping[int, int] = {
    int(kind): helper.tensor_dtype_to_np_dtype(kind).itemsize
    for kind in (
        *(TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE),
        *(TensorProto.INT64, TensorProto.INT32, TensorProto.INT8, TensorProto.BOOL),
    )
}
"""Bytes of an element of a weight, by ONNX's number of its type."""
GREATEST_NODES = 2**16
"""The greatest number of nodes of a graph. The graph of a network with 40 blocks has about 2000."""
GREATEST_BYTES = 2**25
"""The greatest size of a graph file whose weights are elsewhere. Most of it is the tables of RoPE: 16 MiB for
16,384 patches."""
_GRAPHS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)


@dataclass(frozen=True)
class _Subject:
    """A graph, and what it is compared with.

    Args:
        model: the graph, without its weights.
        folder: the folder of its file.
        weights: the only file that it may refer to, relative to its folder; None if it may refer to none.
        operators: the number of nodes of each operator, as the manifest says; None if they are not counted.
        domains: the operator sets that the engine runs.
    """

    model: ModelProto
    folder: Path
    weights: str | None
    operators: Mapping[str, int] | None
    domains: frozenset[str]


def _nodes(subject: _Subject) -> str:
    found = len(subject.model.graph.node)
    return f"{found} nodes, expected at most {GREATEST_NODES}" if found > GREATEST_NODES else ""


def _control_flow(subject: _Subject) -> str:
    holders = [
        node.op_type
        for node in subject.model.graph.node
        if any(attribute.type in _GRAPHS for attribute in node.attribute)
    ]
    found = ", ".join(sorted(set(holders)))
    return f"operators that run other graphs: {found}" if found else ""


def _domains(subject: _Subject) -> str:
    model = subject.model
    used = {*(entry.domain for entry in model.opset_import), *(node.domain for node in model.graph.node)}
    unknown = sorted(used - subject.domains)
    if unknown or model.functions:
        allowed = ", ".join(sorted(filter(None, subject.domains)))
        return f"operators of {', '.join(map(repr, unknown)) or 'functions'}, expected only {allowed}"
    return ""


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    yield from model.graph.initializer
    for sparse in model.graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in model.graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def _external_data(subject: _Subject) -> str:
    external = [tensor for tensor in _tensors(subject.model) if uses_external_data(tensor)]
    for tensor in external:
        location = _entry(tensor, "location")
        if location != subject.weights:
            return f"{tensor.name} is read from {location!r}, expected {subject.weights!r}"
    if not external or subject.weights is None:
        return ""
    try:
        nbytes = (subject.folder / subject.weights).stat().st_size
    except OSError as error:
        return f"{subject.weights} cannot be read: {error.strerror}"
    return next(filter(None, (_misplaced(tensor, nbytes) for tensor in external)), "")


def _misplaced(tensor: TensorProto, nbytes: int) -> str:
    """Return how the place of a tensor does not fit its file and its shape; empty if it does."""
    start, length = _entry(tensor, "offset") or "0", _entry(tensor, "length")
    if not (start.isascii() and start.isdigit() and length.isascii() and length.isdigit()):
        return f"{tensor.name} is at {start!r}, of {length!r} bytes"
    if int(start) + int(length) > nbytes:
        return f"{tensor.name} ends at byte {int(start) + int(length)} of a file of {nbytes}"
    size = _SIZES.get(tensor.data_type, 0)
    if min(tensor.dims, default=1) < 0 or math.prod(tensor.dims) * size != int(length):
        return f"{tensor.name}, {list(tensor.dims)} of {size} bytes each, has {length} bytes"
    return ""


def _entry(tensor: TensorProto, key: str) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == key), "")


def _operators(subject: _Subject) -> str:
    if subject.operators is None:
        return ""
    found, said = Counter(node.op_type for node in subject.model.graph.node), subject.operators
    wrong = sorted(name for name in {*found, *said} if found.get(name, 0) != said.get(name, 0))
    if not wrong:
        return ""
    name = wrong[0]
    return f"{found.get(name, 0)} {name}, and {said.get(name, 0)} in the manifest"


def _valid(subject: _Subject) -> str:
    """Check a graph with the weights left out: ONNX's checker would open their file."""
    model = ModelProto()
    model.CopyFrom(subject.model)
    for tensor in _tensors(model):
        if uses_external_data(tensor):
            del tensor.external_data[:], tensor.dims[:]
            tensor.dims.append(0)
            tensor.data_location = TensorProto.DEFAULT
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        return " ".join(str(error).split())[:200]
    return ""


BOUNDS: Mapping[str, Callable[[_Subject], str]] = {
    "number of nodes": _nodes,
    "control flow": _control_flow,
    "operator sets": _domains,
    "external data": _external_data,
    "operators": _operators,
    "valid ONNX": _valid,
}
"""By name: returns how a graph breaks the bound; empty if it does not. The cheapest bound comes first."""


def broken_bound(
    path: Path, record: VariantRecord, domains: frozenset[str], count: bool = True
) -> tuple[str, str]:
    """Return the first bound that a graph breaks, and how; two empty strings if it keeps all.

    Args:
        path: the graph's file.
        record: the graph's record in the manifest.
        domains: the operator sets that the engine runs.
        count: whether the operators must be those of the manifest.

    Raises:
        ArtifactError: the file is missing, or is not an ONNX graph.
    """
    beside = PurePosixPath(record.path).parent
    weights = os.path.relpath(record.weights, beside) if record.weights else None
    operators = record.graph.operators if record.graph else {}
    if not path.is_file():
        raise ArtifactError(
            f"{path} is missing",
            got="no such file",
            expected="the graph that the manifest lists",
            fix="export the artifact again",
        )
    if record.weights and (nbytes := path.stat().st_size) > GREATEST_BYTES:
        return "file size", f"{nbytes:,} bytes, expected at most {GREATEST_BYTES:,}"
    subject = _Subject(read_graph(path), path.parent, weights, operators if count else None, domains)
    return next(((name, broken) for name, wrong in BOUNDS.items() if (broken := wrong(subject))), ("", ""))


def broken_foreign_bound(path: Path) -> tuple[str, str]:
    """Return the first bound that a graph of another exporter breaks, and how; two empty strings for none.

    Such a graph has no record. It may have control flow, and the operators of any engine. The files of its
    weights must be in its folder or below.

    Raises:
        ArtifactError: the file is not an ONNX graph.
    """
    model = read_graph(path)
    subject = _Subject(model, path.parent, None, None, frozenset())
    rows = {"number of nodes": _nodes, "external data": _outside, "valid ONNX": _valid}
    return next(((name, broken) for name, wrong in rows.items() if (broken := wrong(subject))), ("", ""))


def _outside(subject: _Subject) -> str:
    """Check that every file of weights is in the folder of the graph, and as long as the graph says."""
    sizes: dict[str, int] = {}
    for tensor in filter(uses_external_data, _tensors(subject.model)):
        location = _entry(tensor, "location")
        place = PurePosixPath(location)
        if place.is_absolute() or ".." in place.parts or not location:
            return f"{tensor.name} is read from {location!r}, outside of the folder"
        if location not in sizes:
            try:
                sizes[location] = (subject.folder / location).stat().st_size
            except OSError as error:
                return f"{location} cannot be read: {error.strerror}"
        places = [_entry(tensor, key) or "0" for key in ("offset", "length")]
        if not all(one.isascii() and one.isdigit() for one in places):
            return f"{tensor.name} is at {places[0]!r}, of {places[1]!r} bytes"
        start, length = map(int, places)
        if start + length > sizes[location]:
            return f"{tensor.name} ends at byte {start + length} of a file of {sizes[location]}"
    return ""


def read_graph(path: Path) -> ModelProto:
    """Read a graph without its weights.

    Raises:
        ArtifactError: the file is not an ONNX graph.
    """
    try:
        return onnx.load(path, load_external_data=False)
    except (DecodeError, OSError) as error:
        raise no_graph(path, error) from error


def no_graph(path: Path, error: Exception) -> ArtifactError:
    """Return the error for a file that cannot be read as an ONNX graph."""
    return ArtifactError(
        f"cannot read {path}",
        got=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
        expected="an ONNX graph",
        fix="fetch it again, or export it again",
    )


def require_bounds(path: Path, record: VariantRecord, domains: frozenset[str], count: bool = True) -> None:
    """Check that a graph keeps every bound; the arguments are those of :func:`broken_bound`.

    Raises:
        EngineError: it breaks one.
        ArtifactError: the file is not an ONNX graph.
    """
    name, broken = broken_bound(path, record, domains, count)
    if broken:
        raise EngineError(
            f"{path} is not run, because of its {name}",
            got=broken,
            expected="a graph as the manifest describes it, which only computes",
            fix="export the artifact again, or fetch it again",
        )
