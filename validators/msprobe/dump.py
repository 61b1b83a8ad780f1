"""Writes what every node of a graph gives: in ONNX Runtime on the CPU, and on the simulated NPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx

from vconv.runtime.devices.base import Device
from vconv.runtime.simulation.arithmetic import OFF, ON, Arithmetic
from vconv.runtime.simulation.fusions import Replacement, fused
from vconv.runtime.simulation.graphs import rewritten
from vconv.runtime.stages.pieces import every_value
from vconv.types import Array, Arrays
from vconv.validators.msprobe import figures, names, nano
from vconv.validators.msprobe.mapping import Operator
from vconv.validators.msprobe.names import NodeName
from vconv.validators.msprobe.table import Row


@dataclass(frozen=True)
class Subject:
    """A graph with inputs, and the names of its nodes.

    Args:
        model: the graph; its weights may be in a file.
        folder: the folder of that file.
        given: the inputs by name.
        timestamp: the time in microseconds, which is a part of every file's name.
    """

    model: onnx.ModelProto
    folder: Path
    given: Arrays
    timestamp: int
    nodes: tuple[NodeName, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", tuple(names.node_names(self.model.graph.node)))

    def makers(self) -> dict[str, tuple[int, int]]:
        """Return which node, by its place in the graph, and which of its outputs gives each value."""
        return {
            value: (place, index)
            for place, node in enumerate(self.model.graph.node)
            for index, value in enumerate(node.output)
            if value
        }

    def moving(self) -> list[bool]:
        """Return for each node whether it depends on an input. A compiler folds the others into constants."""
        values, found = set(self.given), []
        for node in self.model.graph.node:
            found.append(not values.isdisjoint(node.input))
            if found[-1]:
                values.update(node.output)
        return found

    def output_nodes(self) -> set[int]:
        """Return the places of the nodes that give outputs of the graph."""
        makers = self.makers()
        return {makers[value.name][0] for value in self.model.graph.output if value.name in makers}


def write_golden(subject: Subject, device: Device, folder: Path) -> dict[str, Path]:
    """Write every output of every node, as it is, into one file each.

    Args:
        subject: the graph and its inputs.
        device: the CPU.
        folder: an empty folder.

    Returns:
        Each value's file.
    """
    makers, files, renamed = subject.makers(), dict[str, Path](), dict[str, str]()
    for _, values in every_value(subject.model, subject.folder, device, subject.given):
        for name, value in values.items():
            place, index = makers[name]
            wanted = names.golden_file(subject.nodes[place].file, index, subject.timestamp)
            file = names.shortened(wanted, len(renamed), subject.timestamp)
            if file != wanted:
                renamed[wanted] = file
            files[name] = folder / file
            np.save(files[name], value)
    if renamed:
        (folder / names.MAPPING_FILE).write_text(names.mapping_text(renamed))
    return files


@dataclass(frozen=True)
class Target:
    """What was written for the simulated NPU.

    Args:
        operators: its operators in order.
        rows: the figures of every tensor, in the order of the operators.
        fused: the nodes whose own outputs a fused operator does not give, by the name of that operator.
        constants: the nodes that depend on weights alone, of which there is no dump.
    """

    operators: tuple[Operator, ...]
    rows: tuple[Row, ...]
    fused: Mapping[str, tuple[str, ...]]
    constants: tuple[str, ...]


def write_target(
    subject: Subject, arithmetic: Arithmetic, device: Device, golden: Mapping[str, Path], folder: Path
) -> Target:
    """Write each operator's outputs as the simulated NPU computes them; compare them with the golden ones.

    Args:
        subject: the graph and its inputs.
        arithmetic: how the simulated NPU computes.
        device: the simulated NPU.
        golden: the file of every value of the graph.
        folder: an empty folder.

    Returns:
        What was written. Rounded operands and the parts of a fused operator have no place in it: no node of
        the graph gives them.
    """
    model, replaced = fused(subject.model) if arithmetic.fusions == ON else (subject.model, [])
    model, _ = rewritten(model, replace(arithmetic, fusions=OFF))
    operators = _operators(subject, replaced, golden)
    first, makers, outputs = len(subject.given), subject.makers(), subject.output_nodes()
    rank = {place: number for number, place in enumerate(operators)}
    rows: list[Row] = []
    for values in _own_values(model, subject, device, set(golden)):
        place = makers[next(iter(values))][0]
        if place not in operators:
            continue
        operator, number = operators[place], first + rank[place]
        file = folder / names.target_file(operator.type, operator.name, number, subject.timestamp)
        with file.open("wb") as opened:
            nano.write(opened, list(values.values()), operator.nodes[-1].origin)
        for index, (name, value) in enumerate(values.items()):
            there = np.load(golden[name], mmap_mode="r")
            rows.append(
                Row(
                    index=number,
                    operator=operator,
                    output=index,
                    dtypes=(value.dtype.name, there.dtype.name),
                    elements=value.size,
                    figures=figures.compare(value, there),
                    is_output=place in outputs and operator.ground_truth == subject.nodes[place].node,
                )
            )
    return Target(
        operators=tuple(operators.values()),
        rows=tuple(sorted(rows, key=lambda row: row.index)),
        fused={
            one.name: tuple(node.node for node in one.nodes[:-1])
            for one in operators.values()
            if len(one.nodes) > 1
        },
        constants=tuple(
            name.node for name, moves in zip(subject.nodes, subject.moving(), strict=True) if not moves
        ),
    )


def _own_values(
    model: onnx.ModelProto, subject: Subject, device: Device, known: set[str]
) -> Iterator[dict[str, Array]]:
    """Run a changed graph and yield, node by node, those values that the graph itself has."""
    for _, values in every_value(model, subject.folder, device, subject.given):
        own = {name: value for name, value in values.items() if name in known}
        if own:
            yield own


def _operators(
    subject: Subject, replaced: list[Replacement], golden: Mapping[str, Path]
) -> dict[int, Operator]:
    """Return the operators of the simulated offline model by the place of the last node of each, in order."""
    graph, makers, moving = subject.model.graph, subject.makers(), subject.moving()
    members = {place: [place] for place in range(len(graph.node)) if moving[place]}
    types = {place: node.op_type for place, node in enumerate(graph.node)}
    for one in replaced:
        last = makers[one.values[-1]][0]
        inner = sorted(makers[value][0] for value in one.values if value in makers)
        members[last], types[last] = inner, one.operator
        for place in inner:
            if place != last:
                del members[place]
    return {
        last: Operator(
            type=types[last],
            nodes=tuple(subject.nodes[place] for place in nodes),
            inputs=_inputs(subject, nodes, members, makers),
            dtypes=tuple(
                np.load(golden[name], mmap_mode="r").dtype.name for name in graph.node[last].output if name
            ),
        )
        for last, nodes in members.items()
    }


def _inputs(
    subject: Subject,
    nodes: list[int],
    operators: Mapping[int, list[int]],
    makers: Mapping[str, tuple[int, int]],
) -> tuple[str, ...]:
    """Return what an operator reads of others and of the graph's inputs, as ``OPERATOR:INDEX``."""
    read = dict.fromkeys(name for place in nodes for name in subject.model.graph.node[place].input)
    found = []
    for name in read:
        place, index = makers.get(name, (-1, 0))
        if name in subject.given:
            found.append(f"{name}:0")
        elif place in operators and place not in nodes:
            found.append(f"{subject.nodes[place].operator}:{index}")
    return tuple(found)
