"""Models: the original as its library builds it, one without any weights, and what both give."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from vconv.convert.architectures.outputs import named_outputs
from vconv.convert.libraries.table import library_of
from vconv.convert.network import Network


def load(folder: Path, network: Network) -> nn.Module:
    """Load a model with its stock library, in float32, ready for inference; nothing is patched.

    Args:
        folder: a folder with ``config.json`` and the weights.
        network: what it holds, by which library and class are chosen.

    Raises:
        WeightsError: the library cannot build the model, or leaves a tensor out or makes one up.
    """
    return library_of(network).load(folder, network).eval().requires_grad_(False)


def discard(model: nn.Module) -> None:
    """Let go of a model's weights at once; it is of no more use.

    The modules of a model hold on to each other, so that it would stay until Python's collector came by: a
    second copy of the weights beside the next model's.
    """
    nn.Module.to(model, "meta")


def without_weights(folder: Path, network: Network, mode: FakeTensorMode) -> nn.Module:
    """Build a model whose parameters have shapes but no data, so that nothing can be read from them.

    What no file holds, such as the RoPE periods, is there as the library computes it.

    Args:
        folder: a folder with ``config.json``.
        network: what it describes.
        mode: the fake mode that the parameters belong to; their device reads ``cpu``.

    Raises:
        WeightsError: the library cannot build the model.
    """
    model = library_of(network).build(folder, network)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.state_dict().items()}
    with mode:
        parameters = {name: torch.empty(shape) for name, shape in shapes.items()}
    model.load_state_dict(parameters, assign=True)
    return model.eval().requires_grad_(False)


class Outputs(nn.Module):
    """A stock model whose results have vconv's output names.

    Args:
        model: a stock model.
        network: what it is.
    """

    def __init__(self, model: nn.Module, network: Network) -> None:
        super().__init__()
        self.model = model
        self.network = network
        self._run = library_of(network).run

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """Run the model on (B, 3, H, W); return the outputs of :func:`.output_names`, in that order."""
        given = self._run(self.model, self.network, pixel_values)
        return tuple(named_outputs(self.network, given).values())
