"""ONNX graphs, exported from parameters that have no data and pointed into the checkpoint afterwards.

Memory and time do not grow with the weights: the model is built with shapes alone (fake tensors), traced,
optimised, and each of its weights is then given a name, an offset and a length in ``model.safetensors``.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterable
from pathlib import Path

import onnx
import onnx_ir as ir
import onnxscript.optimizer
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from vconv.convert import models
from vconv.convert.layouts.base import Network
from vconv.convert.libraries.base import quiet
from vconv.convert.libraries.table import library_of
from vconv.convert.passes.name_batch import name_batch
from vconv.convert.passes.point_at_weights import forget_weights, point_at_weights
from vconv.convert.passes.resize_as_matmul import resize_as_matmul
from vconv.convert.passes.strip_metadata import strip_metadata
from vconv.convert.patches.base import Patch, applied
from vconv.convert.safetensors_file import read_header
from vconv.types import INPUT, WEIGHTS_FILE

LEAST_OPSET, DEFAULT_OPSET, GREATEST_OPSET = 18, 18, 22
_MODEL = "model."
"""What :class:`vconv.convert.models.Outputs` puts before the names of a model's parameters."""
FOLD_ELEMENTS = 2**20
"""Greatest constant that is folded: room for the RoPE tables, whose sines no device need then compute."""
_LOGGERS = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")


def export_graph(
    path: Path,
    network: Network,
    patches: Iterable[Patch],
    size: tuple[int, int],
    batch: int | None = None,
    opset: int = DEFAULT_OPSET,
) -> ir.Model:
    """Export one graph beside the checkpoint whose weights it uses.

    Args:
        path: the graph to write, in a folder that holds ``config.json`` and ``model.safetensors``.
        network: what the checkpoint is.
        patches: patches to put on the model while it is traced: those that its configuration does not carry.
        size: (height, width) of the images.
        batch: the fixed batch of a static graph; None for a dynamic one.
        opset: version of ONNX's operator set.

    Returns:
        The graph as written; its weights are external.
    """
    names = models.output_names(network)
    mode = FakeTensorMode()
    model = models.without_weights(path.parent, network, mode)
    with mode:
        images = torch.empty(batch or 2, network.numbers.channels, *size)
    dynamic = None if batch else ({0: torch.export.Dim("batch", min=1, max=4096)},)
    wrapper = models.Outputs(model, network).eval()
    with (
        torch.no_grad(),
        library_of(network).plain_attention(model),
        applied(model, network, patches),
        quiet(*_LOGGERS),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        program = torch.export.export(wrapper, (images,), strict=False, dynamic_shapes=dynamic)
        exported = torch.onnx.export(
            program,
            dynamo=True,
            optimize=False,
            verbose=False,
            opset_version=opset,
            input_names=[INPUT],
            output_names=list(names),
        )
        if exported is None:
            raise RuntimeError("torch.onnx.export returned no program")
        graph_model: ir.Model = exported.model
        parameters = {_MODEL + name for name, _ in model.named_parameters()}
        forget_weights(graph_model.graph, parameters.__contains__)
        onnxscript.optimizer.optimize(
            graph_model, input_size_limit=FOLD_ELEMENTS, output_size_limit=FOLD_ELEMENTS
        )
    point_at_weights(
        graph_model.graph,
        read_header(path.parent / WEIGHTS_FILE),
        lambda name: network.layout.disk_key(name.removeprefix(_MODEL)),
    )
    resize_as_matmul(graph_model.graph)
    if batch is None:
        name_batch(graph_model.graph)
    strip_metadata(graph_model)
    graph_model.ir_version = onnx.helper.find_min_ir_version_for(
        [onnx.helper.make_opsetid("", opset)], ignore_unknown=True
    )
    ir.save(graph_model, path)
    return graph_model
