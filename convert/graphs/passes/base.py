"""Definition of a pass, and the function that runs a list of passes and checks each of them.

A pass changes a graph in place. It declares preconditions (``requires``) and postconditions (``ensures``),
and it returns whether it changed the graph. The framework evaluates the conditions. It also compares
fingerprints of the model before and after the pass, to check the returned value. A violation is an error in
vconv, and no graph is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from vconv.convert.files.safetensors_file import TensorEntry
from vconv.convert.libraries.image_processing import ImageProcessing
from vconv.convert.reduced.plan import Plan

FOLD_ELEMENTS = 2**20
"""Number of elements of the greatest constant that is folded.

This is enough for the RoPE tables, so that a device does not compute their sines.
"""


def _same(name: str) -> str:
    return name


@dataclass(frozen=True)
class Repeats:
    """The blocks that were left out of a trace, because they differ from a traced one in their weights alone.

    Args:
        copies: for each block that was left out, in order: the names of its tensors, by the names of the
            same tensors of the traced block.
        preceding: the names of the tensors of the block before the traced one.
        following: the names of the tensors of the block after those that were left out.
    """

    copies: tuple[Mapping[str, str], ...]
    preceding: frozenset[str]
    following: frozenset[str]

    def renamed(self, name: Callable[[str], str]) -> Repeats:
        """Return the same with other names."""
        return Repeats(
            tuple({name(key): name(value) for key, value in one.items()} for one in self.copies),
            frozenset(map(name, self.preceding)),
            frozenset(map(name, self.following)),
        )


@dataclass(frozen=True)
class PassContext:
    """The data that passes may read in addition to the model.

    Args:
        entries: the header of the weights file, by stored key.
        stored_key: returns the key in the weights file for the name of an initializer.
        divided: the initializers that are rows of one stored tensor, in order, each with their number; by
            stored key.
        batch: the batch size of a static graph; None for a dynamic batch.
        patch: side of a patch, in pixels, in a graph for images of any size; else 0.
        greatest_grid: the greatest number of rows or columns of patches in such a graph; else 0.
        opset: version of ONNX's operator set that was requested for the graph; None if no pass needs it.
        fold_elements: number of elements of the greatest constant that is folded.
        image_processing: the steps that the graph does before the network; None if no pass needs them.
        plan: the plan of a graph of reduced precision; None if no pass needs it.
        repeats: the blocks with which the graph was not traced; None if it was traced with all.
    """

    entries: Mapping[str, TensorEntry] = field(default_factory=dict)
    stored_key: Callable[[str], str] = _same
    divided: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    batch: int | None = None
    patch: int = 0
    greatest_grid: int = 0
    opset: int | None = None
    fold_elements: int = FOLD_ELEMENTS
    image_processing: ImageProcessing | None = None
    plan: Plan | None = None
    repeats: Repeats | None = None


@dataclass(frozen=True)
class Condition:
    """A condition that a model must meet.

    Args:
        name: the condition in words.
        wrong: returns a description of the violation; empty if the model meets the condition.
    """

    name: str
    wrong: Callable[[ir.Model, PassContext], str]


@dataclass(frozen=True)
class Pass:
    """One pass: a row of the table.

    Args:
        name: its name in manifests.
        run: changes a model in place, and returns whether it changed anything.
        requires: conditions that must hold before the pass.
        ensures: conditions that hold after the pass.
    """

    name: str
    run: Callable[[ir.Model, PassContext], bool]
    requires: tuple[Condition, ...] = ()
    ensures: tuple[Condition, ...] = ()


@dataclass(frozen=True)
class PassResult:
    """The result of a pass.

    Args:
        name: the name of the pass.
        modified: whether it changed the model.
    """

    name: str
    modified: bool


class PassError(RuntimeError):
    """A pass violated its declaration, or its preconditions did not hold. This is an error in vconv."""


def run_passes(model: ir.Model, passes: Sequence[Pass], context: PassContext) -> tuple[PassResult, ...]:
    """Run passes on a model, in order, in place.

    Args:
        model: the model.
        passes: the passes.
        context: the data that they may read.

    Returns:
        One result per pass.

    Raises:
        PassError: a condition does not hold before or after a pass, or the pass returned the wrong value for
            whether it changed the model.
    """
    results = []
    before = fingerprint(model)
    for one in passes:
        _check(one, "requires", one.requires, model, context)
        modified = one.run(model, context)
        after = fingerprint(model)
        if modified != (before != after):
            did = "changed" if before != after else "did not change"
            raise PassError(f"the pass {one.name} returned modified={modified}, but it {did} the model")
        _check(one, "ensures", one.ensures, model, context)
        results.append(PassResult(one.name, modified))
        before = after
    return tuple(results)


def _check(
    one: Pass, verb: str, conditions: Sequence[Condition], model: ir.Model, context: PassContext
) -> None:
    for condition in conditions:
        wrong = condition.wrong(model, context)
        if wrong:
            raise PassError(f"the pass {one.name} {verb} {condition.name!r}, but {wrong}")


def fingerprint(model: ir.Model) -> str:
    """Return a hash of all that a saved model contains. External data count by their position in the file."""
    digest = hashlib.sha256()
    for piece in _pieces(model):
        digest.update(len(piece).to_bytes(8, "little"))
        digest.update(piece)
    return digest.hexdigest()


def _pieces(model: ir.Model) -> Iterator[bytes]:
    graph = model.graph
    header: Any = (
        *(model.ir_version, model.producer_name, model.producer_version, model.domain, model.model_version),
        *(model.doc_string, sorted(model.metadata_props.items()), sorted(model.opset_imports.items())),
        *(graph.name, graph.doc_string, sorted(graph.metadata_props.items())),
    )
    yield repr(header).encode()
    for function in model.functions.values():
        yield _bytes(ir.serde.serialize_function(function))
    for values in (graph.inputs, graph.outputs, graph.initializers.values()):
        yield from map(_value, values)
    for node in graph:
        yield _bytes(ir.serde.serialize_node(node))
        yield from map(_value, node.outputs)
    for value in graph.initializers.values():
        yield from _tensor(value.const_value)


def _bytes(message: Any) -> bytes:
    return bytes(message.SerializeToString(deterministic=True))


def _value(value: ir.Value) -> bytes:
    notes = value.doc_string, sorted(value.metadata_props.items())
    return repr((value.name, str(value.type), value.dtype, str(value.shape), notes)).encode()


def _tensor(tensor: ir.TensorProtocol | None) -> Iterator[bytes]:
    if tensor is None:
        yield b"no data"
        return
    notes = tensor.doc_string, sorted(tensor.metadata_props.items())
    yield repr((tensor.name, tensor.dtype, str(tensor.shape), notes)).encode()
    if isinstance(tensor, ir.ExternalTensor):
        yield repr((str(tensor.location), tensor.offset, tensor.length)).encode()
    else:
        yield tensor.tobytes()
