"""What a pass is, and the framework that runs a list of them and holds each to its word.

A pass changes a graph in place. It says what must hold before it (``requires``) and what holds after it
(``ensures``), and it returns whether it changed anything. The framework checks all three: the first two by
their conditions, the last by a fingerprint of the model before and after. A pass that says one thing and does
another is an error in vconv, never a graph that is shipped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from vconv.convert.files.safetensors_file import TensorEntry

FOLD_ELEMENTS = 2**20
"""Greatest constant that is folded: room for the RoPE tables, whose sines no device need then compute."""


def _same(name: str) -> str:
    return name


@dataclass(frozen=True)
class PassContext:
    """What passes may look at, beside the model.

    Args:
        entries: the header of the weights file, by stored key.
        stored_key: from an initializer's name to its key in the weights file.
        batch: what the batch is fixed to; None where it stays dynamic.
        opset: version of ONNX's operator set that the graph is made for; None where its own counts.
        fold_elements: greatest constant that is folded.
    """

    entries: Mapping[str, TensorEntry] = field(default_factory=dict)
    stored_key: Callable[[str], str] = _same
    batch: int | None = None
    opset: int | None = None
    fold_elements: int = FOLD_ELEMENTS


@dataclass(frozen=True)
class Condition:
    """Something that must hold of a model.

    Args:
        name: what must hold.
        wrong: says what is wrong; empty if it holds.
    """

    name: str
    wrong: Callable[[ir.Model, PassContext], str]


@dataclass(frozen=True)
class Pass:
    """One pass: a row of the table.

    Args:
        name: its name, as manifests have it.
        run: changes a model in place, and returns whether it did.
        requires: what must hold before.
        ensures: what holds after.
    """

    name: str
    run: Callable[[ir.Model, PassContext], bool]
    requires: tuple[Condition, ...] = ()
    ensures: tuple[Condition, ...] = ()


@dataclass(frozen=True)
class PassResult:
    """What a pass did.

    Args:
        name: the pass.
        modified: whether it changed the model.
    """

    name: str
    modified: bool


class PassError(RuntimeError):
    """A pass did not do what it says, or was run where it must not be: an error in vconv."""


def run_passes(model: ir.Model, passes: Sequence[Pass], context: PassContext) -> tuple[PassResult, ...]:
    """Run passes on a model, in order, in place.

    Args:
        model: the model.
        passes: the passes.
        context: what they may look at.

    Returns:
        One result a pass.

    Raises:
        PassError: what a pass requires does not hold before it, what it ensures does not hold after it, or it
            did not say truly whether it changed the model.
    """
    results = []
    before = fingerprint(model)
    for one in passes:
        _hold(one, "requires", one.requires, model, context)
        said = one.run(model, context)
        after = fingerprint(model)
        if said != (before != after):
            did = "changed" if before != after else "did not change"
            raise PassError(f"the pass {one.name} says modified={said}, but it {did} the model")
        _hold(one, "ensures", one.ensures, model, context)
        results.append(PassResult(one.name, said))
        before = after
    return tuple(results)


def _hold(
    one: Pass, verb: str, conditions: Sequence[Condition], model: ir.Model, context: PassContext
) -> None:
    for condition in conditions:
        wrong = condition.wrong(model, context)
        if wrong:
            raise PassError(f"the pass {one.name} {verb} {condition.name!r}, but {wrong}")


def fingerprint(model: ir.Model) -> str:
    """Return a hash of all that is written of a model. Of data in a weights file, its place counts."""
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
