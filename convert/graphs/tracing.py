"""Export of ONNX graphs from models without data; the graphs refer to the weights in the checkpoint.

Memory and time do not grow with the size of the weights. The model is built with fake tensors, which have
shapes but no data. It is traced and optimised. Then each weight becomes a reference to a name, an offset and
a length in ``model.safetensors``.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from vconv.convert.architectures.base import Capability
from vconv.convert.architectures.layer_outputs import layers_of
from vconv.convert.architectures.outputs import output_names
from vconv.convert.architectures.sizes import size_bounds
from vconv.convert.ascend.operators import DEFAULT_NPU_OPSET
from vconv.convert.files.safetensors_file import TensorEntry
from vconv.convert.graphs.passes import table as passes
from vconv.convert.graphs.passes.base import PassContext, Repeats, run_passes
from vconv.convert.graphs.passes.point_at_weights import forget_weights
from vconv.convert.libraries import models
from vconv.convert.libraries.base import quiet
from vconv.convert.libraries.image_processing import ImageProcessing
from vconv.convert.libraries.layers import find_blocks
from vconv.convert.libraries.repeated_blocks import shortened
from vconv.convert.libraries.table import library_of
from vconv.convert.network import Network
from vconv.convert.patches.base import Patch, applied
from vconv.types import COLUMNS_AXIS, INPUT, ROWS_AXIS

LEAST_OPSET, DEFAULT_OPSET, GREATEST_OPSET = 18, 18, 22
GREATEST_BATCH = 1024
"""The greatest batch of the static and of the dynamic graph."""
_TRACED_GRID = (5, 7)
"""Rows and columns of patches with which a graph for any size is traced: not square, and no network's own."""
_MODEL = "model."
"""Prefix of parameter names in :class:`vconv.convert.libraries.models.Outputs`."""
_POOLED: Mapping[Any, list[int]] = {
    torch.ops.aten.adaptive_avg_pool1d.default: [-1],
    torch.ops.aten.adaptive_avg_pool2d.default: [-2, -1],
}
"""Adaptive poolings, with the axes that they pool."""
LOGGERS = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")


@dataclass(frozen=True)
class TracedGraph:
    """A graph, and the passes that were run on it.

    Args:
        model: the graph.
        passes: names of the passes, in the order in which they were run.
        repeats: the blocks with which it was not traced; None if it was traced with all.
        entries: the position of every weight in the checkpoint file.
    """

    model: ir.Model
    passes: tuple[str, ...]
    repeats: Repeats | None = None
    entries: Mapping[str, TensorEntry] = field(default_factory=dict)

    def followed_by(self, names: Sequence[str], context: PassContext) -> TracedGraph:
        """Run passes on a copy of the graph, and return the copy."""
        model = ir.from_proto(ir.to_proto(self.model))
        context = replace(context, repeats=self.repeats, entries=self.entries)
        return _passed(model, names, context, self.passes)


def _passed(
    model: ir.Model, names: Sequence[str], context: PassContext, before: tuple[str, ...] = ()
) -> TracedGraph:
    results = run_passes(model, passes.named(names), context)
    return TracedGraph(model, (*before, *(result.name for result in results)))


def trace(
    folder: Path,
    network: Network,
    patches: Iterable[Patch],
    size: tuple[int, int],
    opset: int,
    entries: Mapping[str, TensorEntry],
    any_size: bool = False,
) -> TracedGraph:
    """Trace the graph of a network with a dynamic batch; its weights refer to a checkpoint file.

    The checkpoint file does not have to exist yet.

    Args:
        folder: a folder that holds the network's configuration.
        network: the network.
        patches: patches to apply to the model while it is traced, in the form that graphs have.
        size: (height, width) of the images.
        opset: version of ONNX's operator set.
        entries: the position of every weight in the checkpoint file.
        any_size: whether height and width of the images are dynamic too.

    Returns:
        The graph. Its batch is symbolic, and no weight was read.
    """
    bounds = size_bounds(network) if any_size else None
    if bounds:
        size = (bounds.multiple * _TRACED_GRID[0], bounds.multiple * _TRACED_GRID[1])
    mode = FakeTensorMode()
    model = models.without_weights(folder, network, mode)
    with mode:
        images = torch.empty(2, network.known.channels, *size)
    dynamic: dict[int, Any] = {0: torch.export.Dim("batch", min=1, max=GREATEST_BATCH)}
    if bounds:
        sides = {"least": bounds.least // bounds.multiple, "greatest": bounds.greatest // bounds.multiple}
        dynamic |= {
            axis: bounds.multiple * torch.export.Dim(name, min=sides["least"], max=sides["greatest"])
            for axis, name in ((2, ROWS_AXIS), (3, COLUMNS_AXIS))
        }
    wrapper, disk_key = models.Outputs(model, network).eval(), network.layout.disk_key
    with (
        torch.no_grad(),
        library_of(network).plain_attention(model, network),
        library_of(network).symbolic_sizes(model) if bounds else contextlib.nullcontext(),
        applied(model, network, [patch.traced() for patch in patches]),
        _shortened(model, network) as repeats,
        quiet(*LOGGERS),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        program = torch.export.export(wrapper, (images,), strict=False, dynamic_shapes=(dynamic,))
        write_poolings_as_means(program)
        exported = torch.onnx.export(
            program,
            dynamo=True,
            optimize=False,
            verbose=False,
            opset_version=opset,
            input_names=[INPUT],
            output_names=list(output_names(network)),
        )
        if exported is None:
            raise RuntimeError("torch.onnx.export returned no program")
        traced: ir.Model = exported.model
        parameters = {_MODEL + name for name in model.state_dict()}
        forget_weights(traced.graph, parameters.__contains__)
        context = PassContext(
            entries,
            lambda name: disk_key(name.removeprefix(_MODEL)),
            {
                key: {_MODEL + name: rows for name, rows in parts.items()}
                for key, parts in network.divided().items()
            },
            opset=opset,
            greatest_grid=bounds.greatest // bounds.multiple if bounds else 0,
        )
        names = passes.TRACED_AT_ANY_SIZE if bounds else passes.TRACED
        made = _passed(traced, names, context)
        return replace(made, repeats=repeats.renamed(disk_key) if repeats else None, entries=entries)


def _shortened(model: nn.Module, network: Network) -> contextlib.AbstractContextManager[Repeats | None]:
    """Leave out blocks that are the same but for their weights, if nothing but the last block's is read."""
    if network.observed or network.stages or layers_of(network) or network.lack(Capability.BLOCKS):
        return contextlib.nullcontext()
    return shortened(model, find_blocks(model, network))


def write_poolings_as_means(program: torch.export.ExportedProgram) -> None:
    """Write every adaptive pooling to one value as a mean, in place.

    torch may take it apart into a mean and ``as_strided``, which becomes a loop in graphs of torch 2.9, and a
    ``Gather`` in those of later versions.
    """
    for node in program.graph.nodes:
        axes = _POOLED.get(node.target)
        if axes and set(node.args[1]) == {1}:
            node.target, node.args = torch.ops.aten.mean.dim, (node.args[0], axes, True)
    program.graph_module.recompile()


def write_graph(
    path: Path,
    traced: TracedGraph,
    batch: int | None,
    patch: int = 0,
    image_processing: ImageProcessing | None = None,
    npu_opset: int = DEFAULT_NPU_OPSET,
    rank3: bool = False,
) -> TracedGraph:
    """Write a traced graph with a fixed or a dynamic batch.

    Args:
        path: the file to write.
        traced: a graph from :func:`trace`; it is not changed.
        batch: the batch size of a static graph; None for a dynamic batch.
        patch: side of a patch, in pixels, if the graph was traced for images of any size; else 0.
        image_processing: the steps that the graph does first, if it takes uint8 images.
        npu_opset: the opset of a static graph, which is for an NPU; any other keeps the opset of its trace.
        rank3: whether a static graph has attention over tensors of rank 3.

    Returns:
        The graph as written.

    Raises:
        InputError: the network has an operator that has no form in that opset, or attention of another form.
    """
    names: tuple[str, ...] = passes.DYNAMIC_SIZE if patch else passes.DYNAMIC
    if image_processing:
        names = passes.FROM_IMAGES
    elif batch is not None:
        names = passes.STATIC_RANK3 if rank3 else passes.STATIC
    with quiet(*LOGGERS):
        context = PassContext(batch=batch, patch=patch, opset=npu_opset, image_processing=image_processing)
        made = traced.followed_by(names, context)
    ir.save(made.model, path)
    return made
