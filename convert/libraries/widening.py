"""Models whose weights stay in a narrow type, or in a file, and are widened only while they are used.

A model of 7 billion parameters needs 27 GB in float32. Stored in bfloat16, mapped from its file, and widened
one layer at a time, it computes the same numbers in the memory of one layer.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import safetensors
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vconv.convert.files import safetensors_file, shards
from vconv.convert.files.safetensors_file import TensorEntry
from vconv.convert.network import Network
from vconv.convert.weights.pieces import NARROW
from vconv.errors import WeightsError
from vconv.types import WEIGHTS_FILE

GREATEST_WIDENED = 2**31
"""Bytes of the greatest model that is loaded whole in float32, if its file has a narrower type."""


def stored_in(folder: Path) -> dict[str, TensorEntry]:
    """Return the place of every tensor in a folder's weights file, or in its shards."""
    index = folder / shards.SAFETENSORS_INDEX
    whole = folder / WEIGHTS_FILE
    return safetensors_file.read_header(whole) if whole.exists() else shards.read_shards(index)


def too_large(entries: Mapping[str, TensorEntry]) -> bool:
    """Return whether tensors have a narrow type, and would take too much memory in float32."""
    narrow = sum(entry.nbytes for entry in entries.values() if entry.dtype in NARROW)
    return narrow * 2 > GREATEST_WIDENED


def is_narrow(model: nn.Module) -> bool:
    """Return whether a model has weights that are widened only while they are used."""
    return any(parameter.dtype in (torch.float16, torch.bfloat16) for parameter in model.parameters())


def map_weights(model: nn.Module, network: Network, entries: Mapping[str, TensorEntry]) -> nn.Module:
    """Give a model without data its weights, mapped from their files, and widen them while they are used.

    Args:
        model: the model, as its library builds it, with parameters on the meta device.
        network: its network.
        entries: the place of each tensor.

    Returns:
        The same model. It computes in float32, and holds one layer in float32 at a time.

    Raises:
        WeightsError: a tensor is missing or left over, or has another shape.
    """
    places = {
        network.layout.disk_key(name.removeprefix(network.prefix)): entry for name, entry in entries.items()
    }
    wanted = {name: network.layout.disk_key(name) for name in model.state_dict()}
    rows = _rows(network)
    wrong = sorted({*wanted.values()} ^ {*places})
    wrong += [
        key
        for name, key in wanted.items()
        if not wrong and tuple(model.get_parameter(name).shape) != _shape(places[key].shape, rows.get(name))
    ]
    if wrong:
        raise WeightsError(
            f"{network.library} does not take these weights",
            got=f"{len(wrong)} tensors that do not fit, such as {wrong[0]}",
            expected="every tensor of the model, in its shape",
            fix="check that the weights belong to this config.json",
        )
    paths = {entry.path for entry in places.values()}
    with contextlib.ExitStack() as files:
        opened = {path: files.enter_context(safetensors.safe_open(path, "pt")) for path in paths}
        tensors = {
            name: opened[places[key].path].get_tensor(places[key].name)[rows.get(name, ...)]
            for name, key in wanted.items()
        }
    model.load_state_dict(tensors, assign=True)
    _widen(model, lambda tensor: tensor.float())
    return model


def _rows(network: Network) -> dict[str, slice]:
    """Return the rows of its stored tensor that each tensor in memory is, where the library divides one."""
    found: dict[str, slice] = {}
    for parts in network.divided().values():
        ends = [*itertools.accumulate(parts.values(), initial=0)]
        found |= {name: slice(*ends[place : place + 2]) for place, name in enumerate(parts)}
    return found


def _shape(stored: tuple[int, ...], rows: slice | None) -> tuple[int, ...]:
    return (rows.stop - rows.start, *stored[1:]) if rows else stored


def _widen(model: nn.Module, wide: Callable[[Tensor], Tensor]) -> list[RemovableHandle]:
    """Widen a model: the weights of linear layers while they are used, and all others for good."""
    handles = []
    for module in model.modules():
        if isinstance(module, nn.Linear):
            handles += _widened_while(module, module, wide)
            continue
        if next(module.parameters(recurse=False), None) is not None:
            # It may use the weight of a layer without a call of the layer, as timm's _qkvb models do.
            layers = [child for child in module.children() if isinstance(child, nn.Linear)]
            handles += [handle for layer in layers for handle in _widened_while(module, layer, wide)]
        for parameter in module.parameters(recurse=False):
            parameter.data = wide(parameter.data) if parameter.is_floating_point() else parameter.data
        # A run in inference mode may have left a buffer there whose data cannot be set.
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.is_floating_point():
                setattr(module, name, wide(buffer))
    return handles


def _widened_while(
    caller: nn.Module, layer: nn.Linear, wide: Callable[[Tensor], Tensor]
) -> list[RemovableHandle]:
    """Keep a layer's weights wide while a module is called: the layer, or the module that holds it."""
    narrow: dict[nn.Parameter, Tensor] = {}

    def widen(*_: object) -> None:
        for parameter in layer.parameters(recurse=False):
            narrow[parameter] = parameter.data
            parameter.data = wide(parameter.data)

    def restore(*_: object) -> None:
        while narrow:
            parameter, before = narrow.popitem()
            parameter.data = before

    # A layer may be widened twice, to float32 and from there to float64: the last is restored first.
    return [caller.register_forward_pre_hook(widen), caller.register_forward_hook(restore, prepend=True)]


@contextlib.contextmanager
def in_double(model: nn.Module) -> Iterator[None]:
    """Make a model compute in float64; large weights are converted only while they are used.

    A whole model in float64 would need twice the memory of its weights in addition; one layer at a time needs
    little. Small parts (norms, tokens, the patch embedding) are converted permanently, so the model cannot be
    used for anything else afterwards.
    """
    handles = _widen(model, lambda tensor: tensor.double())
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
