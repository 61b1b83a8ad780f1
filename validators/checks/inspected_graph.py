"""A graph as the checks see it: without its weights, beside what it must be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
from google.protobuf.message import DecodeError

from vconv.artifact.contracts import Interface
from vconv.convert.files.safetensors_file import TensorEntry, read_header
from vconv.convert.network import Network
from vconv.runtime.engines.runnable import no_graph
from vconv.validators.faults import classes


@dataclass(frozen=True)
class InspectedGraph:
    """One graph that is checked.

    Args:
        path: its file.
        name: its path inside the artifact.
        weights: the file of its weights; None if the weights are inside the graph file.
        model: the graph, without its weights.
        network: the network that it must compute.
        size: (height, width) of the images that it must take.
        batch: the batch size that it must be fixed to; None for a dynamic graph.
        entries: the header of the weights file.
        old: whether version 0.1.0 made it, which kept fewer rules.
        any_size: whether it must take images of any size; then ``size`` is the image processor's.
        from_images: whether it must preprocess images itself.
    """

    path: Path
    name: str
    weights: Path | None
    model: ir.Model
    network: Network
    size: tuple[int, int]
    batch: int | None
    entries: Mapping[str, TensorEntry]
    old: bool = False
    any_size: bool = False
    from_images: bool = False

    @property
    def operators(self) -> dict[str, int]:
        """The number of nodes of each operator."""
        return dict(sorted(Counter(node.op_type for node in self.model.graph.all_nodes()).items()))

    @property
    def interface(self) -> Interface:
        """The shapes that its input and outputs must have."""
        return Interface(self.network, self.size, self.batch, self.any_size, self.from_images)

    def fault_of(self, key: str) -> str:
        """Return the class of fault of a weight that is not used correctly."""
        return classes.of_tensor(self.network, key)


def open_graph(
    folder: Path,
    name: str,
    weights: str | None,
    network: Network,
    size: tuple[int, int],
    batch: int | None,
    old: bool = False,
    any_size: bool = False,
    from_images: bool = False,
) -> InspectedGraph:
    """Read a graph without its weights.

    Args:
        folder: the artifact.
        name: the path of the graph inside it.
        weights: the path of the file that holds its weights; None where they are inside.
        network: the network that it must compute.
        size: (height, width) of the images that it must take.
        batch: the batch size that it must be fixed to; None for a dynamic graph.
        old: whether version 0.1.0 made it.
        any_size: whether it must take images of any size.
        from_images: whether it must preprocess images itself.

    Raises:
        ArtifactError: the file is not an ONNX graph.
    """
    path = folder / name
    try:
        model = ir.load(path)
    except (DecodeError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise no_graph(path, error) from error
    beside = folder / weights if weights else None
    entries = read_header(beside) if beside else {}
    return InspectedGraph(
        path, name, beside, model, network, size, batch, entries, old, any_size, from_images
    )
