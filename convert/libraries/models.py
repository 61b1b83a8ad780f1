"""Models: load the original with its library, build a model without weights, and name the outputs."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import tempfile
from collections.abc import Iterator, Mapping
from copy import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from vconv.convert.architectures.layer_outputs import layers_of
from vconv.convert.architectures.outputs import named_outputs
from vconv.convert.libraries import widening
from vconv.convert.libraries.base import quiet, understood
from vconv.convert.libraries.layers import LayerReader, Seen
from vconv.convert.libraries.table import library_of
from vconv.convert.libraries.transformers_backbones import is_backbone
from vconv.convert.network import Network
from vconv.types import CONFIG_FILE, Config


def load(folder: Path, network: Network) -> nn.Module:
    """Load a model with its stock library, in float32, ready for inference; nothing is patched.

    Weights in a narrow type that would take too much memory in float32 stay in their files, and are widened
    while they are used: see :mod:`vconv.convert.libraries.widening`. The numbers are the same.

    Args:
        folder: a folder with ``config.json`` and the weights.
        network: the network in the folder; it determines the library and the class.

    Raises:
        WeightsError: the library cannot build the model, ignores a tensor of the file, or initialises a
            tensor itself.
    """
    library, entries = library_of(network), widening.stored_in(folder)
    if widening.too_large(entries):
        model = widening.map_weights(library.build(folder, network), network, entries)
    else:
        model = library.load(folder, network)
    return model.eval().requires_grad_(False)


def discard(model: nn.Module) -> None:
    """Free the memory of a model's weights at once; the model cannot be used afterwards.

    The modules of a model refer to each other in cycles. Without this call, the weights would stay in memory
    until Python's garbage collector runs, beside the weights of the next model.
    """
    nn.Module.to(model, "meta")


def built_without_weights(config: Config, network: Network, mode: FakeTensorMode) -> nn.Module:
    """Build the model of a configuration as :func:`without_weights` does."""
    with tempfile.TemporaryDirectory(prefix="vconv-") as name:
        (Path(name) / CONFIG_FILE).write_text(json.dumps(dict(config)))
        return without_weights(Path(name), network, mode)


def without_weights(folder: Path, network: Network, mode: FakeTensorMode) -> nn.Module:
    """Build a model whose parameters have shapes but no data, so that no step can read a weight.

    Buffers that no file holds, such as the RoPE periods, have the values that the library computes.

    Args:
        folder: a folder with ``config.json``.
        network: the network that it describes.
        mode: the fake mode that the parameters belong to; they report the device ``cpu``.

    Raises:
        WeightsError: the library cannot build the model.
    """
    model = library_of(network).build(folder, network)
    stored = {
        name: (tuple(tensor.shape), torch.float32 if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in model.state_dict().items()
    }
    with mode:
        parameters = {name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in stored.items()}
    model.load_state_dict(parameters, assign=True)
    return model.eval().requires_grad_(False)


@contextlib.contextmanager
def running_without_data(model: nn.Module, network: Network, mode: FakeTensorMode) -> Iterator[None]:
    """Let a model that was built without weights run, with plain attention, while the context is open.

    Args:
        model: the model.
        network: the network that it implements.
        mode: the fake mode that its parameters belong to.
    """
    library = library_of(network)
    plain = library.plain_attention(model, network)
    silent = quiet("torch._subclasses.fake_tensor", level=logging.CRITICAL)  # it logs what it then raises
    with caches_cleared(model), mode, torch.no_grad(), plain, understood(library.name, "outputs"), silent:
        yield


@contextlib.contextmanager
def caches_cleared(model: nn.Module) -> Iterator[None]:
    """Clear the caches that functions and methods of a model's modules have filled, when the context closes.

    transformers caches the coordinates of patches. A model that is run without data would leave tensors
    without data there for the next model of the process. Some of timm's modules keep what they computed
    as attributes, which are restored too.
    """
    before = {part: _attributes(part) for part in model.modules()}
    try:
        yield
    finally:
        for part, attributes in before.items():
            for name in _attributes(part).keys() - attributes.keys():
                delattr(part, name)
            vars(part).update(attributes)
        kinds = {type(part) for part in model.modules()}
        for place in (*kinds, *{sys.modules[kind.__module__] for kind in kinds}):
            for found in vars(place).values():
                value = getattr(found, "__func__", found)
                cells = getattr(value, "__closure__", None) or ()
                for function in (value, *(cell.cell_contents for cell in cells)):
                    if hasattr(function, "cache_clear"):
                        function.cache_clear()


def _attributes(module: nn.Module) -> dict[str, Any]:
    """Return the plain attributes of a module, with copies of its collections."""
    found = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    return {name: copy(value) if isinstance(value, dict | list) else value for name, value in found.items()}


class Outputs(nn.Module):
    """A stock model that returns the outputs that vconv defines.

    Args:
        model: a stock model.
        network: the network that it implements.
    """

    def __init__(self, model: nn.Module, network: Network) -> None:
        super().__init__()
        self.model = model
        self.network = network
        self._run = library_of(network).run
        read = layers_of(network) and not is_backbone(network)
        self.layers = LayerReader(model, network) if read else None

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """Run the model on (B, 3, H, W); return the outputs of :func:`.output_names`, in that order."""
        if self.layers is None:
            return self.named(pixel_values, self.run(pixel_values))
        with self.layers.reading() as seen:
            given = self.run(pixel_values)
        return self.named(pixel_values, given, seen)

    def run(self, pixel_values: Tensor) -> Mapping[str, Tensor]:
        """Run the model on (B, 3, H, W); return what its library returns, by name."""
        return self._run(self.model, self.network, pixel_values)

    def named(
        self, pixel_values: Tensor, given: Mapping[str, Tensor], seen: Seen | None = None
    ) -> tuple[Tensor, ...]:
        """Return the outputs of :func:`.output_names`, in that order.

        Args:
            pixel_values: the images.
            given: what the library returned.
            seen: what single blocks gave; None if no output of one is asked for.
        """
        if self.layers and seen:
            given = {**given, **self.layers.named(pixel_values, seen)}
        return tuple(named_outputs(self.network, given).values())
