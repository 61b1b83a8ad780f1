"""Rewriting a graph in float16 or bfloat16, so that float32 arithmetic gives what each operator rounds to.

ONNX Runtime computes a float16 graph on a CPU in float32, and rounds only where types meet. Here each
operator is computed in float32, and each of its results is rounded to the graph's own type. That is what an
accelerator gives that accumulates in float32, but for the order of its sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import NodeProto, TensorProto, helper

from vconv.errors import ArtifactError, UnavailableError
from vconv.precisions import PRECISIONS
from vconv.runtime.devices.base import Device
from vconv.runtime.engines import linked_weights
from vconv.runtime.engines.base import RunPiece, refusals
from vconv.runtime.engines.onnxruntime import OnnxRuntimeSession, onnxruntime_session, piece_of_session
from vconv.runtime.engines.runnable import read_graph
from vconv.runtime.engines.table import ENGINES
from vconv.types import Array, Arrays

ENGINE = "simulated-rounding"
_GRAPHS = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
NARROW = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


def rounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph that computes in float32, and rounds every narrow value to its type.

    Args:
        model: a graph; it stays unchanged. Its weights may be in a file.

    Returns:
        The new graph, with the same references to its weights and the same inputs and outputs, those of a
        narrow type in float32.

    Raises:
        UnavailableError: a part of the graph would not be rounded.
    """
    _require_understood(model)
    inferred = onnx.shape_inference.infer_shapes(model)
    kinds = {
        value.name: value.type.tensor_type.elem_type
        for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
    }
    kinds |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    untyped = [name for node in model.graph.node for name in node.output if name and not kinds.get(name)]
    if untyped:
        raise _not_simulated(f"{untyped[0]}, whose type is not known")
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.node[:], made.graph.value_info[:]
    stored = {tensor.name: f"{tensor.name}_stored" for tensor in made.graph.initializer if _narrow(tensor)}
    for tensor in made.graph.initializer:
        if tensor.name in stored:
            made.graph.node.append(_cast(stored[tensor.name], tensor.name, TensorProto.FLOAT))
            tensor.name = stored[tensor.name]
    for node in model.graph.node:
        made.graph.node.extend(_rewritten(node, kinds))
    for value in (*made.graph.input, *made.graph.output):
        if value.type.tensor_type.elem_type in NARROW:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return made


def _require_understood(model: onnx.ModelProto) -> None:
    """Check that nothing in a graph would compute without being rounded."""
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise _not_simulated(f"an operator {node.op_type} of {node.domain}")
        if any(attribute.type in _GRAPHS for attribute in node.attribute):
            raise _not_simulated(f"{node.op_type}, which runs another graph")
    if model.functions:
        raise _not_simulated("functions")


def _not_simulated(got: str) -> UnavailableError:
    return UnavailableError(
        f"{ENGINE} does not simulate this graph",
        got=got,
        expected="operators of ONNX alone, with known types",
        fix="use an engine that computes in the type of the graph",
    )


def _narrow(tensor: TensorProto) -> bool:
    return tensor.data_type in NARROW


def _rewritten(node: NodeProto, kinds: dict[str, int]) -> Iterator[NodeProto]:
    """Yield a node that computes in float32, and the rounding of what it gives."""
    rounds = {name: kinds.get(name, 0) for name in node.output if kinds.get(name, 0) in NARROW}
    if node.op_type == "Cast":
        (taken,), (given,) = node.input, node.output
        if given in rounds:
            yield _cast(taken, f"{given}_narrow", rounds[given])
            yield _cast(f"{given}_narrow", given, TensorProto.FLOAT)
            return
        if kinds.get(taken, 0) in NARROW and kinds.get(given, 0) == TensorProto.FLOAT:
            yield helper.make_node("Identity", [taken], [given], name=node.name)
            return
    changed = NodeProto()
    changed.CopyFrom(node)
    for place, name in enumerate(node.output):
        if name in rounds:
            changed.output[place] = f"{name}_exact"
    for attribute in changed.attribute:
        if attribute.HasField("t") and attribute.t.data_type in NARROW:
            wide = onnx.numpy_helper.to_array(attribute.t).astype("float32")
            attribute.t.CopyFrom(onnx.numpy_helper.from_array(wide, attribute.t.name))
    yield changed
    for name, kind in rounds.items():
        yield _cast(f"{name}_exact", f"{name}_narrow", kind)
        yield _cast(f"{name}_narrow", name, TensorProto.FLOAT)


def _cast(taken: str, given: str, kind: int) -> NodeProto:
    return helper.make_node("Cast", [taken], [given], name=f"{given}_cast", to=kind)


class RoundingSession(OnnxRuntimeSession):
    """A graph in float16 or bfloat16 on a CPU, whose arithmetic is simulated: see :func:`rounded`.

    The arguments are those of :class:`vconv.runtime.engines.onnxruntime.OnnxRuntimeSession`.
    """

    engine = ENGINE

    @classmethod
    def lack(cls, device: Device) -> str:
        """See :meth:`vconv.runtime.engines.base.FileSession.lack`."""
        return "" if device.kind == "cpu" else "the simulation of rounding runs on a CPU"

    @classmethod
    def arithmetic(cls, device: Device, precision: str) -> str:
        """See :meth:`vconv.runtime.engines.base.FileSession.arithmetic`."""
        row, rounds = PRECISIONS.get(precision), ENGINES[cls.engine].rounds
        if row is None or row.onnx not in rounds:
            raise UnavailableError(
                f"{cls.engine} does not simulate {precision}",
                got=precision,
                expected=f"a graph of {' or '.join(sorted(rounds))}",
                fix="use another engine",
            )
        return super().arithmetic(device, precision)

    @classmethod
    def piece(
        cls, model: onnx.ModelProto, folder: Path, names: Sequence[str], device: Device, precision: str
    ) -> RunPiece:
        """See :meth:`vconv.runtime.engines.base.GraphSession.piece`."""
        run = piece_of_session(rounded(model), folder, names, device, plain=True)
        narrow = {value.name for value in model.graph.input if value.type.tensor_type.elem_type in NARROW}

        def run_rounded(given: Arrays) -> dict[str, Array]:
            return run(
                {name: value.astype(np.float32) if name in narrow else value for name, value in given.items()}
            )

        return run_rounded

    def load(self, graph: Path) -> onnxruntime.InferenceSession:
        """Load the rewritten graph. Optimisations would remove what rounds."""
        with refusals(self.engine, (ArtifactError,), self.path.name):
            model = read_graph(graph)
        place = linked_weights.resolved(model, graph.parent)
        serialised = rounded(model).SerializeToString()
        return onnxruntime_session(serialised, self.device, self.path.name, weights_folder=place, plain=True)
