"""Graphs that were traced with three blocks and completed, against graphs that were traced with all."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import torch
from safetensors.torch import save_file

from vconv.catalog.systems import System
from vconv.convert.conversion import image_size
from vconv.convert.files.safetensors_file import TensorEntry, read_header
from vconv.convert.graphs import tracing
from vconv.convert.graphs.passes.base import Repeats
from vconv.convert.graphs.passes.repeat_blocks import repeat_blocks
from vconv.convert.graphs.tracing import DEFAULT_OPSET, TracedGraph, write_graph
from vconv.convert.sources.table import Request, open_source
from vconv.types import WEIGHTS_FILE

DEPTH = 6


def deep(system: System) -> System:
    """Return a small system with more blocks than a trace needs."""
    config = dict(system.config)
    if system.library == "timm":
        config["model_args"] = {**config["model_args"], "depth": DEPTH}
    else:
        config["num_hidden_layers"] = DEPTH
    return replace(system, config=config)


def patch_of(system: System) -> int:
    """Return the side of a system's patches."""
    return 14 if "dinov2" in system.name else 16


def meanings(model: ir.Model) -> list[str]:
    """Return what each output computes, as a hash of operators, attributes, weights and constants.

    Neither the names nor the order of nodes count.
    """
    known: dict[ir.Value | None, str] = {None: "nothing"}
    graph = model.graph
    for value in graph.inputs:
        known[value] = f"input {value.name} {value.shape}"
    for value in graph.initializers.values():
        tensor = value.const_value
        assert tensor is not None
        held = tensor.name if isinstance(tensor, ir.ExternalTensor) else tensor.numpy().tobytes()
        known[value] = repr((held, str(tensor.dtype), str(tensor.shape)))
    for node in graph:
        told = sorted((name, str(attribute.value)) for name, attribute in node.attributes.items())
        text = repr((node.domain, node.op_type, told, [known[value] for value in node.inputs]))
        digest = hashlib.sha256(text.encode()).hexdigest()
        for place, value in enumerate(node.outputs):
            known[value] = f"{digest} {place} {value.shape} {value.type}"
    return [f"{value.name} {known[value]}" for value in graph.outputs]


@pytest.fixture
def traced(
    small_system: System, tmp_path: Path, convert_weights: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., TracedGraph]:
    """Trace a deep system; with all of its blocks, or with three."""
    scratch, folder = tmp_path / "scratch", tmp_path / "artifact"
    scratch.mkdir()
    folder.mkdir()
    source = open_source(Request(deep(small_system), "synthetic:1"), scratch)
    found = convert_weights(folder, source)

    def trace(whole: bool, any_size: bool = False) -> TracedGraph:
        with monkeypatch.context() as patched:
            # A trace is remembered unless something of the exporter is replaced.
            shortened = tracing._shortened
            instead = (lambda *_: contextlib.nullcontext()) if whole else (lambda *given: shortened(*given))
            patched.setattr(tracing, "_shortened", instead)
            entries = read_header(folder / WEIGHTS_FILE)
            size = image_size(source)
            return tracing.trace(folder, found.network, found.patches, size, DEFAULT_OPSET, entries, any_size)

    return trace


@pytest.mark.every_system
@pytest.mark.parametrize(("batch", "any_size"), [(None, False), (2, False), (None, True)])
def test_a_completed_graph_is_the_one_that_was_traced_with_every_block(
    traced: Callable[..., TracedGraph],
    small_system: System,
    batch: int | None,
    any_size: bool,
    tmp_path: Path,
) -> None:
    short, whole = traced(whole=False, any_size=any_size), traced(whole=True, any_size=any_size)
    patch = patch_of(small_system) if any_size else 0
    assert whole.repeats is None
    if short.repeats is None:
        pytest.skip("its blocks are in stages")
    assert len(short.repeats.copies) == DEPTH - 3
    written = [
        write_graph(tmp_path / f"{number}.onnx", one, batch, patch).model
        for number, one in enumerate((short, whole))
    ]
    assert len(list(short.model.graph)) < len(list(written[0].graph)) == len(list(written[1].graph))
    assert meanings(written[0]) == meanings(written[1])


def value(name: str, shape: tuple[int, ...] = (1, 2)) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))


def chain(*more: Callable[[list[ir.Value]], ir.Node]) -> tuple[ir.Graph, Repeats]:
    """Make a graph of three blocks that add their weights, and of more nodes, which read the blocks."""
    stream, weights, nodes = [value("x")], [value(f"w.{number}") for number in (0, 1, 4)], []
    for number, weight in enumerate(weights):
        made = value(f"y{number}")
        nodes.append(ir.Node("", "Add", [stream[-1], weight], outputs=[made], name=f"block{number}"))
        stream.append(made)
    nodes += [make(stream) for make in more]
    outputs = [stream[-1], *(node.outputs[0] for node in nodes[3:])]
    graph = ir.Graph([stream[0]], outputs, nodes=nodes, initializers=weights, opset_imports={"": 18})
    copies = tuple({"w.1": f"w.{number}"} for number in (2, 3))
    return graph, Repeats(copies, frozenset({"w.0"}), frozenset({"w.4"}))


def entries(tmp_path: Path) -> dict[str, TensorEntry]:
    names = [f"w.{number}" for number in range(5)]
    tensors = {name: torch.full((1, 2), float(number)) for number, name in enumerate(names)}
    save_file(tensors, tmp_path / WEIGHTS_FILE)
    return read_header(tmp_path / WEIGHTS_FILE)


def test_a_block_is_repeated_with_the_weights_of_each_block_that_was_left_out(tmp_path: Path) -> None:
    graph, repeats = chain()
    repeat_blocks(graph, entries(tmp_path), repeats)
    read = [(node.inputs[0].name, node.inputs[1].name) for node in graph if node.inputs[0] and node.inputs[1]]
    weights = [weight for _, weight in read]
    assert weights == ["w.0", "w.1", "w.2", "w.3", "w.4"]
    made = [node.outputs[0].name for node in graph]
    assert [given for given, _ in read] == ["x", *made[:-1]]
    assert graph.outputs[0].name == made[-1]
    for name in ("w.2", "w.3"):
        tensor = graph.initializers[name].const_value
        assert isinstance(tensor, ir.ExternalTensor) and tensor.numpy().max() == float(name[-1])


def test_what_reads_the_blocks_besides_reads_the_last_of_them(tmp_path: Path) -> None:
    def reads_two(stream: list[ir.Value]) -> ir.Node:
        return ir.Node("", "Add", [stream[2], stream[1]], outputs=[value("z")], name="more")

    graph, repeats = chain(reads_two)
    repeat_blocks(graph, entries(tmp_path), repeats)
    (last,) = (node.outputs[0] for node in graph if graph.initializers["w.3"] in node.inputs)
    more = next(node for node in graph if node.name == "more")
    assert more.inputs[0] is last


def test_a_block_that_gives_more_than_one_value_is_refused(tmp_path: Path) -> None:
    graph, repeats = chain()
    inner = graph[1].outputs[0]
    two = ir.Node("", "Mul", [inner, graph.initializers["w.1"]], outputs=[value("t")], name="two")
    graph.insert_after(graph[1], two)
    graph.outputs.append(two.outputs[0])
    with pytest.raises(ValueError, match="gives 2"):
        repeat_blocks(graph, entries(tmp_path), repeats)
