"""An ONNX graph in stages, cut between the weights of one block and the weights of the next block."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from vconv.convert.architectures.base import EMBEDDING_ROLES, Capability
from vconv.convert.architectures.outputs import Needed
from vconv.convert.graphs.layer_norms import NORM
from vconv.convert.network import Network, TensorSpec
from vconv.errors import ArtifactError
from vconv.precisions import FP32
from vconv.runtime.devices.base import Device
from vconv.runtime.engines.base import RunPiece
from vconv.runtime.engines.table import ENGINES
from vconv.runtime.stages.base import TOKENS, Stages, Step, require, stage_names
from vconv.runtime.stages.pieces import piece_of, taken_by
from vconv.runtime.stages.unweighted import stages_by_use
from vconv.types import CHANNELS, INPUT, TOKENS_AXIS, Array, Arrays

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)


@dataclass(frozen=True)
class _Cut:
    """A graph with the stage of every value.

    Args:
        nodes: the graph's nodes in topological order.
        stages: value -> the stage that it belongs to.
        depends: the values that depend on the images; each stage that needs any other value recomputes it.
        of_shape: those of them that depend only on the shape of the images, such as RoPE's tables in a graph
            for images of any size.
        types: value -> its ONNX element type, where it is known.
        head: the last stage.
    """

    nodes: tuple[onnx.NodeProto, ...]
    stages: Mapping[str, int]
    depends: frozenset[str]
    of_shape: frozenset[str]
    types: Mapping[str, int]
    head: int

    def needed(self, stage: int) -> list[str]:
        """List the values that a stage takes from earlier stages."""
        own = [node for node in self.nodes if self.stages[node.output[0]] == stage]
        names = dict.fromkeys(name for node in own for name in taken_by(node))
        return [name for name in names if name in self.depends and self.stages[name] < stage]

    def tokens_into(self, stage: int) -> str:
        """Return the only floating-point value that goes into a stage.

        Raises:
            ArtifactError: there is no such value, or there are several.
        """
        needed = [name for name in self.needed(stage) if name not in self.of_shape]
        found = [name for name in needed if self.types.get(name, TensorProto.FLOAT) in _FLOATS]
        if stage == self.head:
            # It may also take the tokens after earlier blocks, for outputs of these.
            found = [name for name in found if self.stages[name] == stage - 1]
        if len(found) != 1:
            raise ArtifactError(
                "the graph cannot be cut into blocks",
                got=f"{len(found)} values between two of them ({', '.join(found) or 'none'})",
                expected="one, the tokens",
                fix="export the artifact again with this version of vconv",
            )
        return found[0]


def _cut(graph: onnx.GraphProto, network: Network, names: Mapping[str, str], images: str) -> _Cut:
    """Find every value's stage: the latest stage of the weights and inputs that the value depends on.

    Args:
        graph: the graph.
        network: the network.
        names: the network's key of each weight, by the graph's name.
        images: the graph's name of its input.
    """
    head = Needed.by(network).blocks + 1
    by_key = {network.stored_key(tensor): _stage(tensor, head) for tensor in network.tensors().values()}
    stages = {name: by_key[key] for name, key in names.items() if key in by_key}
    stages[images] = 0
    depends, content = {images}, {images}
    for node in graph.node:
        given = taken_by(node)
        stages |= dict.fromkeys(node.output, max((stages.get(name, 0) for name in given), default=0))
        if not depends.isdisjoint(given):
            depends.update(node.output)
        if node.op_type not in ("Shape", "Size") and not content.isdisjoint(given):
            content.update(node.output)
    if not any(node.op_type == NORM for node in graph.node):
        stages = stages_by_use(graph.node, stages, names.keys(), content)
    values = {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}
    types = {name: value.type.tensor_type.elem_type for name, value in values.items()}
    stages |= dict.fromkeys(_after_blocks(graph, values, stages, network, head - 1, images), head)
    return _Cut(tuple(graph.node), stages, frozenset(depends), frozenset(depends - content), types, head)


def _after_blocks(
    graph: onnx.GraphProto,
    values: Mapping[str, onnx.ValueInfoProto],
    stages: Mapping[str, int],
    network: Network,
    last: int,
    images: str,
) -> set[str]:
    """List the values computed from the last block's tokens without weights: they belong to the head.

    If no norm follows the last block, as when timm normalises the pooled tokens, no weight marks where the
    head begins.
    """
    patches = _patches(values[images], network)
    count = 1 + network.registers + patches if patches else TOKENS_AXIS
    made = [name for node in graph.node for name in node.output if stages[name] == last]
    shapes = {name: _dimensions(values[name])[1:] for name in made if name in values}
    tokens = [count, network.numbers.width]
    whole = [
        name for name, shape in shapes.items() if [one.dim_param or one.dim_value for one in shape] == tokens
    ]
    after = set(whole[-1:])
    for node in graph.node:
        if not after.isdisjoint(node.input):
            after.update(node.output)
    return (after - set(whole[-1:])) & set(made)


def _patches(images: onnx.ValueInfoProto, network: Network) -> int:
    """Return the number of patches of the images that a graph takes; 0 if it takes images of any size."""
    sides = [side.dim_value for side in _dimensions(images)[1:]]
    height, width = sides[1:] if sides[0] == CHANNELS else sides[:2]
    return (height // network.numbers.patch) * (width // network.numbers.patch)


def _dimensions(value: onnx.ValueInfoProto) -> list[onnx.TensorShapeProto.Dimension]:
    return list(value.type.tensor_type.shape.dim)


def _stage(tensor: TensorSpec, head: int) -> int:
    if tensor.block is not None:
        return min(tensor.block + 1, head)
    return 0 if tensor.role in EMBEDDING_ROLES else head


class GraphStages(Stages):
    """An ONNX graph in stages. Each stage becomes a small separate graph with the same weights file.

    Args:
        path: the path of the graph.
        network: the description of the network that the graph computes.
        device: the device to run on.
        engine: the name of the engine that runs the graph.
        precision: the name of the precision to compute the graph in.
        names: the network's key of each weight, by the graph's name; None for a graph with the network's
            names.
        images: the graph's name of its input.

    Raises:
        ArtifactError: the graph cannot be cut into blocks, or the architecture's blocks are not known.
    """

    def __init__(
        self,
        path: Path,
        network: Network,
        device: Device,
        engine: str,
        precision: str = FP32,
        names: Mapping[str, str] | None = None,
        images: str = INPUT,
    ) -> None:
        require(network, Capability.ROLES)
        self._folder, self._device, self._precision = path.parent, device, precision
        self._engine = ENGINES[engine]
        self._model = _with_shapes(onnx.load(path, load_external_data=False))
        graph = self._model.graph
        keys = [network.stored_key(tensor) for tensor in network.tensors().values()]
        self._weights = dict(zip(keys, keys, strict=True)) if names is None else dict(names)
        self._cut = _cut(graph, network, self._weights, images)
        self.names = stage_names(self._cut.head - 1)
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._positional = _positional(graph, network, images)
        self._into = [images, *(self._cut.tokens_into(stage) for stage in range(1, len(self.names)))]
        self._carried: dict[str, Array] = {}
        self._loaded: tuple[object, RunPiece] | None = None

    def _gives(self, stage: int) -> list[str]:
        """List the values that a stage returns: those that later stages need, and outputs of the graph."""
        stages, rest = self._cut.stages, range(stage + 1, len(self.names))
        later = dict.fromkeys(name for after in rest for name in self._cut.needed(after))
        later |= dict.fromkeys(value.name for value in self._model.graph.output)
        return [name for name in later if stages[name] == stage]

    def run(self, stage: int, given: Arrays) -> dict[str, Array]:
        """See :meth:`Stages.run`."""
        wanted = self._gives(stage)
        last = stage == len(self.names) - 1
        # If no norm follows the last block, the tokens that go into the head are also an output, unchanged.
        (whole,) = given.values()
        found = self._run(stage, given, wanted)
        if last:
            known = {**self._carried, self._into[stage]: whole, **found}
            return {value.name: known[value.name] for value in self._model.graph.output}
        self._carried |= found
        return {TOKENS: found[self._into[stage + 1]]}

    def steps(self, stage: int, given: Arrays) -> list[Step]:
        """See :meth:`Stages.steps`."""
        nodes = [node for node in self._nodes(stage) if node.output[0] in self._cut.depends]
        floats = [name for node in nodes for name in node.output if name and self._is_float(name)]
        values = self._run(stage, given, floats)
        weights = self._weights_behind()
        # A value that is not a float, such as a shape, is not a step: the steps it comes from replace it.
        sources: dict[str, tuple[str, ...]] = {name: (TOKENS,) for name in self._tokens_into(stage)}
        steps = []
        for node in nodes:
            inputs = tuple(dict.fromkeys(one for name in node.input for one in sources.get(name, ())))
            used = tuple(weights[name] for name in node.input if name in weights)
            sources |= {name: (name,) if name in values else inputs for name in node.output}
            steps += [
                Step(
                    *(name, node.op_type, node.name, inputs, used, values[name].astype(np.float32)),
                    by_position=any(map(self._is_positional, node.input)),
                )
                for name in node.output
                if name in values
            ]
        return steps

    def _is_positional(self, name: str) -> bool:
        """Return whether a value has a row for each patch, whatever the images show."""
        if name in self._cut.of_shape:
            return self._is_float(name)
        return name in self._positional and name not in self._cut.depends

    def _tokens_into(self, stage: int) -> list[str]:
        """List the tokens that a stage takes: the head may take those after several blocks."""
        needed = self._cut.needed(stage) if stage == self._cut.head else []
        others = [name for name in needed if name not in self._cut.of_shape and self._is_float(name)]
        return [self._into[stage], *others]

    def operators(self, stage: int) -> list[str]:
        """List the names of a stage's nodes that depend on the images, in order."""
        return [node.name for node in self._nodes(stage) if node.output[0] in self._cut.depends]

    def _weights_behind(self) -> dict[str, str]:
        """Map each value that is a weight, or is made from one weight alone, to the network's key of it.

        A transpose of a weight, for example, is made from the weight alone.
        """
        found = {name: key for name, key in self._weights.items() if name in self._initializers}
        for node in self._model.graph.node:
            if len(node.input) == 1 and node.input[0] in found:
                found[node.output[0]] = found[node.input[0]]
        return found

    def _is_float(self, name: str) -> bool:
        return self._cut.types.get(name, TensorProto.UNDEFINED) in _FLOATS

    def _nodes(self, stage: int) -> list[onnx.NodeProto]:
        """Return a stage's nodes, and the nodes that compute the constants they need, in order."""
        wanted: set[str] = set()
        found = []
        for node in reversed(self._cut.nodes):
            moving = node.output[0] in self._cut.depends
            own = moving and self._cut.stages[node.output[0]] == stage
            if own or (not moving and any(name in wanted for name in node.output)):
                found.append(node)
                wanted.update(taken_by(node))
        return found[::-1]

    def _run(self, stage: int, given: Arrays, wanted: Sequence[str]) -> dict[str, Array]:
        """Run a stage on its given input and on the stored values of earlier stages."""
        needed = [name for name in self._cut.needed(stage) if name != self._into[stage]] if stage else []
        ((_, tokens),) = given.items()
        into = self._into[stage]
        if into in self._cut.types:
            tokens = tokens.astype(helper.tensor_dtype_to_np_dtype(self._cut.types[into]), copy=False)
        feed = {into: tokens, **{name: self._carried[name] for name in needed}}
        key = (stage, tuple(wanted))
        if self._loaded is None or self._loaded[0] != key:
            model = self._piece(stage, feed, wanted)
            piece = self._engine.piece(model, self._folder, list(wanted), self._device, self._precision)
            self._loaded = key, piece
        return self._loaded[1](feed)

    def _piece(self, stage: int, feed: Mapping[str, Array], wanted: Iterable[str]) -> onnx.ModelProto:
        nodes, name = self._nodes(stage), self.names[stage]
        return piece_of(self._model, nodes, self._initializers, feed, wanted, name)


def _with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph with inferred shapes, its constants as initializers."""
    kept = []
    for node in model.graph.node:
        values = [one.t for one in node.attribute if node.op_type == "Constant" and one.name == "value"]
        if values:
            values[0].name = node.output[0]
            model.graph.initializer.append(values[0])
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return onnx.shape_inference.infer_shapes(model)


def _positional(graph: onnx.GraphProto, network: Network, images: str) -> set[str]:
    """List the values with a row for each patch, or each token, beside those for each image."""
    values = {value.name: value for value in (*graph.value_info, *graph.input)}
    patches = _patches(values[images], network) if network.lack(Capability.TOKEN_GRID) == "" else 0
    rows = {patches, patches + 1, patches + 1 + network.registers} if patches else set()
    shapes = {name: [one.dim_value for one in _dimensions(value)] for name, value in values.items()}
    shapes |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    return {name for name, shape in shapes.items() if rows.intersection(shape[:-1])}
