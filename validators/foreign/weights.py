"""Whether the weights of a graph are the original's, by their content.

An exporter may rename a weight, transpose it, join query, key and value, or split a position embedding. So
tensors are found again by the bytes of their values. A weight that is found in the place of another block is
a fault, and so is one that differs a little from the original's. A weight that an exporter folded into
another constant is found nowhere: then the outputs alone can tell whether it is right.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto, numpy_helper

from vconv.convert.files.safetensors_file import TensorEntry
from vconv.convert.network import Network
from vconv.convert.weights.values import values_of
from vconv.types import Array, Check, Status
from vconv.validators.faults import classes
from vconv.validators.foreign.graph_file import GraphFile, weights_of
from vconv.validators.foreign.scaled_weights import is_scaled

LEAST_ELEMENTS = 64
"""A smaller constant is no weight that could be told from others by its content."""
ALTERED = 0.05
"""The greatest vector relative error at which a constant is an altered weight, and not another constant."""
_PARTS = (3, 2)
"""Numbers of equal parts that a joined weight may have: query, key and value; key and value."""
_DTYPES: Mapping[int, type] = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}
_BLOCK = re.compile(r"\d+")


@dataclass(frozen=True)
class Weight:
    """A tensor of the original, or a part of one.

    Args:
        name: the name of the tensor.
        part: which part it is, in words; empty for the whole.
        block: the number of its block; None outside the blocks.
    """

    name: str
    part: str
    block: int | None


@dataclass(frozen=True)
class Found:
    """Where the original's weights are in a graph.

    Args:
        names: the graph's constants, by the weight that each is, where no other weight has its content.
        keys: by the name of such a constant, the original's name of the weight, or of the first of several.
        missing: the tensors of the original of which no part is in the graph.
        left: large constants of the graph that are no weight of the original, by name.
        total: the number of the original's tensors.
    """

    names: Mapping[Weight, str]
    keys: Mapping[str, str]
    missing: tuple[str, ...]
    left: Mapping[str, Array]
    total: int


def _digest(value: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()


def _turned(value: Array) -> Array:
    """Return the transpose of a matrix; of more axes, with the first one last."""
    return value.reshape(len(value), -1).T if value.ndim > 1 else value


def _parts(value: Array) -> Iterator[tuple[str, Array]]:
    """Yield a tensor and the parts in which an exporter may store it, each with its name."""
    yield "", value
    for count in _PARTS:
        if value.shape[0] % count == 0 and value.ndim <= 2:
            for place, part in enumerate(np.split(value, count)):
                yield f"part {place + 1} of {count}", part
    if value.ndim == 3 and value.shape[0] == 1 and value.shape[1] > 1:
        yield "its first token", value[:, :1]
        yield "without its first token", value[:, 1:]


def _orders(value: Array) -> Iterator[Array]:
    yield value
    if value.ndim > 1:
        yield _turned(value)


def _constants(graph: GraphFile) -> Iterator[tuple[str, Array]]:
    """Yield the constants of a graph that may be weights, one by one."""
    folder = str(graph.path.parent)
    for tensor in weights_of(graph.model):
        if tensor.data_type in _DTYPES and np.prod(tensor.dims) >= LEAST_ELEMENTS:
            yield tensor.name, numpy_helper.to_array(tensor, folder)


def find(graph: GraphFile, network: Network, originals: Mapping[str, TensorEntry]) -> Found:
    """Find the original's weights in a graph.

    Args:
        graph: the graph.
        network: the network, in the layout of ``originals``.
        originals: every tensor of the original, by name.
    """
    kinds = {np.dtype(_DTYPES[one.data_type]) for one in weights_of(graph.model) if one.data_type in _DTYPES}
    blocks = {network.stored_key(tensor): tensor.block for tensor in network.tensors().values()}
    known: dict[str, list[Weight]] = defaultdict(list)
    names = [name for name, entry in originals.items() if _counts(name, entry, network)]
    there: set[str] = set()
    for name in names:
        value = values_of(originals[name])
        if not value.any():
            there.add(name)  # an exporter may leave it out
        for part, piece in _parts(value):
            weight = Weight(name, part, blocks.get(name))
            for kind in kinds:
                for ordered in _orders(piece.astype(kind)):
                    known[_digest(ordered)].append(weight)
    found: dict[Weight, str] = {}
    keys: dict[str, str] = {}
    left: dict[str, Array] = {}
    for name, constant in _constants(graph):
        pieces = _recognised(constant, known)
        for weights in pieces:
            there.update(weight.name for weight in weights)
            if len({weight.name for weight in weights}) == 1:
                found.setdefault(weights[0], name)
                keys.setdefault(name, weights[0].name)
        if not pieces:
            left[name] = constant
    missing = tuple(name for name in names if name not in there)
    return Found(found, keys, missing, left, len(names))


def _counts(name: str, entry: TensorEntry, network: Network) -> bool:
    return int(np.prod(entry.shape)) >= LEAST_ELEMENTS and name not in network.unused


def _recognised(constant: Array, known: Mapping[str, list[Weight]]) -> list[list[Weight]]:
    """Return the weights that may be each part of a constant; empty if a part is no weight."""
    whole = known.get(_digest(constant))
    if whole:
        return [whole]
    for count in _PARTS:
        for axis in range(min(constant.ndim, 2)):
            if constant.shape[axis] % count == 0:
                parts = np.split(constant, count, axis)
                pieces = [found for part in parts if (found := known.get(_digest(part)))]
                if len(pieces) == count:
                    return pieces
    return []


def _first_uses(graph: GraphFile) -> dict[str, int]:
    """Return the place of the first node that uses each constant together with the images, by name.

    A node that reads constants alone, such as a cast, may be anywhere.
    """
    depends = {one.name for one in graph.inputs}
    for node in graph.model.graph.node:
        if not depends.isdisjoint(node.input):
            depends.update(node.output)
    places: dict[str, int] = {}
    for place, node in reversed(list(enumerate(graph.model.graph.node))):
        used = place if node.output[0] in depends else min(places.get(one, place) for one in node.output)
        for name in node.input:
            places[name] = min(used, places.get(name, used))
    return places


def misplaced(graph: GraphFile, found: Found) -> str:
    """Return which weight is in the place of another block's; empty if none is."""
    places = _first_uses(graph)
    series: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for weight, constant in found.names.items():
        if weight.block is not None and constant in places:
            kind = _BLOCK.sub("#", weight.name, count=1) + weight.part
            series[kind].append((places[constant], weight.block))
    for kind, used in series.items():
        order = [block for _, block in sorted(used)]
        for first, second in zip(order, sorted(order), strict=True):
            if first != second:
                return f"{kind} of block {first} is used where that of block {second} belongs"
    return ""


def altered(found: Found, network: Network, originals: Mapping[str, TensorEntry]) -> tuple[str, str]:
    """Return which weight a constant nearly is, with its class of fault; two empty texts if there is none.

    A weight with a scale folded into it is not altered: :mod:`vconv.validators.foreign.scaled_weights`.
    """
    shapes = {name: originals[name].shape for name in found.missing}
    vectors = [values_of(originals[name]).ravel() for name, shape in shapes.items() if len(shape) == 1]
    for name in found.missing:
        expected = values_of(originals[name])
        for constant, value in found.left.items():
            error, stored = _nearest(expected, value)
            if error <= ALTERED and not is_scaled(stored, value, vectors):
                told = f"{constant} differs from {name} by {error:.1e}"
                return told, classes.of_tensor(network, name)
    return "", ""


def _nearest(expected: Array, value: Array) -> tuple[float, Array]:
    """Return the least vector relative error of a constant, and the order of the weight that has it."""
    if value.size != expected.size:
        return float("inf"), expected
    errors = [
        (
            float(np.linalg.norm(one.ravel() - value.ravel().astype(np.float32)))
            / (float(np.linalg.norm(one)) or 1.0),
            one,
        )
        for one in _orders(expected)
    ]
    return min(errors, key=lambda found: found[0])


def check_weights(
    graph: GraphFile, found: Found, network: Network, originals: Mapping[str, TensorEntry]
) -> Check:
    """Judge the weights that were found in a graph.

    Args:
        graph: the graph.
        found: what :func:`find` found.
        network: the network, in the layout of ``originals``.
        originals: every tensor of the original, by name.
    """
    name = f"{graph.path.name}: weights"
    if graph.precision not in ("fp32", "fp16"):
        return Check(
            name, Status.SKIPPED, f"they are {graph.precision}, and not found again by their content"
        )
    if swapped := misplaced(graph, found):
        return Check(name, Status.FAILED, swapped, "weights")
    told, fault = altered(found, network, originals)
    if told:
        return Check(name, Status.FAILED, told, fault)
    there = found.total - len(found.missing)
    if found.missing:
        detail = (
            f"{there} of {found.total} are in it by content; {_named(found.missing)} not: folded, or changed"
        )
        return Check(name, Status.SKIPPED, detail)
    return Check(name, Status.PASSED, f"all {found.total} are in it, by content")


def _named(names: Iterable[str]) -> str:
    first, *others = names
    return f"{first} and {len(others)} more are" if others else f"{first} is"
