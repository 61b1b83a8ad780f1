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
from vconv.convert.sources.sizes import SizeRequest
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
) -> Callable[[bool], tuple[TracedGraph, TracedGraph, int]]:
    """Trace a deep system with three of its blocks and with all; give the side of a patch for any size."""
    scratch, folder = tmp_path / "scratch", tmp_path / "artifact"
    scratch.mkdir()
    folder.mkdir()

    def trace(any_size: bool) -> tuple[TracedGraph, TracedGraph, int]:
        size = SizeRequest.read("dynamic") if any_size else None
        source = open_source(Request(deep(small_system), "synthetic:1", size=size), scratch)
        found = convert_weights(folder, source)
        entries, network = read_header(folder / WEIGHTS_FILE), found.network
        given = (folder, network, found.patches, image_size(source), DEFAULT_OPSET, entries, any_size)
        short = tracing.trace(*given)
        monkeypatch.setattr(tracing, "_shortened", lambda *_: contextlib.nullcontext())
        return short, tracing.trace(*given), network.numbers.patch if any_size else 0

    return trace


@pytest.mark.every_system
@pytest.mark.parametrize("any_size", [False, True], ids=["one size", "any size"])
def test_a_completed_graph_is_the_one_that_was_traced_with_every_block(
    traced: Callable[[bool], tuple[TracedGraph, TracedGraph, int]],
    small_system: System,
    any_size: bool,
    tmp_path: Path,
) -> None:
    short, whole, patch = traced(any_size)
    assert whole.repeats is None
    if short.repeats is None:
        pytest.skip("its blocks are in stages")
    assert len(short.repeats.copies) == DEPTH - 3
    for batch in (None,) if any_size else (None, 2):
        completed, expected = (
            write_graph(tmp_path / f"{number}.onnx", one, batch, patch).model
            for number, one in enumerate((short, whole))
        )
        assert len(list(short.model.graph)) < len(list(completed.graph)) == len(list(expected.graph))
        assert meanings(completed) == meanings(expected)


def value(name: str, shape: tuple[int, ...] = (1, 2)) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))


def chain() -> tuple[ir.Graph, Repeats]:
    """Make a graph of three blocks that add their weights, where five belong."""
    stream, weights, nodes = [value("x")], [value(f"w.{number}") for number in (0, 1, 4)], []
    for number, weight in enumerate(weights):
        made = value(f"y{number}")
        nodes.append(ir.Node("", "Add", [stream[-1], weight], outputs=[made], name=f"block{number}"))
        stream.append(made)
    graph = ir.Graph([stream[0]], [stream[-1]], nodes=nodes, initializers=weights, opset_imports={"": 18})
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


def test_a_block_that_gives_more_than_one_value_is_refused(tmp_path: Path) -> None:
    graph, repeats = chain()
    inner = graph[1].outputs[0]
    two = ir.Node("", "Mul", [inner, graph.initializers["w.1"]], outputs=[value("t")], name="two")
    graph.insert_after(graph[1], two)
    graph.outputs.append(two.outputs[0])
    with pytest.raises(ValueError, match="gives 2"):
        repeat_blocks(graph, entries(tmp_path), repeats)
