"""A network as one flat module with its weights, traced as graphs are, for compilers that take torch modules.

A graph of ONNX and this module come from the same trace: the same patches, in the form that graphs have, and
the same plain attention. What does not depend on the images, such as the tables of RoPE, is computed here, in
float32 on this machine, as the passes of a graph do.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from vconv.convert.graphs.tracing import LOGGERS, write_poolings_as_means
from vconv.convert.libraries import models
from vconv.convert.libraries.base import quiet
from vconv.convert.libraries.table import library_of
from vconv.convert.network import Network
from vconv.convert.patches.base import Patch, applied

_ASSERTION = torch.ops.aten._assert_tensor_metadata.default
"""What torch.export adds wherever a tensor may change its type. It computes nothing."""


@dataclass(frozen=True)
class FlatModel:
    """A flat module, and images of the shape that it was traced with.

    Args:
        module: takes (B, 3, H, W) and returns the outputs of :func:`.output_names`, in that order. Its
            parameters and buffers are what the module holds; no tensor is there twice among the outputs.
        images: zeros of that shape.
    """

    module: fx.GraphModule
    images: Tensor

    @property
    def tanh_gelus(self) -> int:
        """How often the network computes the GELU in its tanh form, because it is defined so."""
        calls = [node for node in self.module.graph.nodes if node.target is torch.ops.aten.gelu.default]
        return sum(node.kwargs.get("approximate", "none") == "tanh" for node in calls)


def flat_model(
    folder: Path, network: Network, patches: Iterable[Patch], size: tuple[int, int], batch: int
) -> FlatModel:
    """Trace a network with its weights, for images of one shape.

    Args:
        folder: a folder with the network's configuration and weights.
        network: the network.
        patches: the patches to apply while it is traced.
        size: (height, width) of the images.
        batch: the batch.
    """
    model = models.load(folder, network)
    images = torch.zeros(batch, network.known.channels, *size)
    with (
        torch.no_grad(),
        library_of(network).plain_attention(model, network),
        applied(model, network, [patch.traced() for patch in patches]),
        quiet(*LOGGERS),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        wrapper = models.Outputs(model, network).eval()
        program = torch.export.export(wrapper, (images,), strict=False)
        write_poolings_as_means(program)
        if any(_writes(node) for node in program.graph.nodes):
            program = program.run_decompositions({})
        module: Any = program.module(check_guards=False)
        _fold(module)
    return FlatModel(module, images)


def _writes(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _fold(module: fx.GraphModule) -> None:
    """Compute what does not depend on the input, and store it as buffers; give each output its own tensor."""
    graph, values = module.graph, dict[fx.Node, Any]()
    for node in list(graph.nodes):
        if node.target is _ASSERTION:
            graph.erase_node(node)
    for node in list(graph.nodes):
        if node.op == "get_attr":
            values[node] = _attribute(module, str(node.target))
        elif node.op == "call_function" and all(one in values for one in node.all_input_nodes):
            arguments, named = fx.map_arg((node.args, node.kwargs), values.__getitem__)
            values[node] = node.target(*arguments, **named)
    computed = [node for node in values if node.op == "call_function"]
    for place, node in enumerate(computed):
        read = [user for user in node.users if user not in values]
        if read and isinstance(values[node], Tensor):
            name = f"folded_{place}"
            module.register_buffer(name, values[node].clone(memory_format=torch.contiguous_format))
            with graph.inserting_before(node):
                stored = graph.get_attr(name)
            node.replace_all_uses_with(stored, delete_user_cb=read.__contains__)
    _separate_outputs(graph)
    graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()


def _separate_outputs(graph: fx.Graph) -> None:
    """Copy an output that is there twice: a compiler may return a tensor once for both."""
    last: Any = graph.output_node()
    given: list[fx.Node] = []
    for node in last.args[0]:
        if node in given:
            with graph.inserting_before(last):
                node = graph.call_function(torch.ops.aten.clone.default, (node,))
        given.append(node)
    last.args = (tuple(given),)


def _attribute(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = getattr(module, name)
    return module
