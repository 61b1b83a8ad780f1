"""Networks whose architecture is not declared: what is found by building one, and running it without data.

The library builds the model of a configuration without weights. It is run once on a tensor without data. This
gives the tensors of its state dict, those that inference uses, its outputs and their shapes, and how often it
computes the exact GELU. Blocks, tokens and roles stay unknown.
"""

from __future__ import annotations

import functools
import json
import re
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from vconv.convert.architectures.base import CLASSIFIER, Kind, Observed, Shapes
from vconv.convert.architectures.outputs import OUTPUTS, place_of
from vconv.convert.layouts.derived import Stored, derived
from vconv.convert.libraries import models
from vconv.convert.libraries.module_kinds import kind_of
from vconv.convert.libraries.table import LIBRARIES
from vconv.convert.libraries.watch import Watch
from vconv.convert.network import Network
from vconv.errors import InputError, WeightsError
from vconv.types import CHANNELS, CONFIG_FILE, Config

_FRAMES = 2
"""Images of the batch that a model is run on: one image may be treated in another way."""


@dataclass(frozen=True)
class _Tensor:
    name: str
    key: str
    shape: tuple[int, ...]
    kind: Kind
    role: str
    persistent: bool
    used: bool


@dataclass(frozen=True)
class _Seen:
    """What one run of a model without data shows."""

    tensors: tuple[_Tensor, ...]
    outputs: Shapes
    kernels: int
    spelled_out: int
    one_of_several: bool
    unasked_size: tuple[int, int] | None
    cut_off: int


def derive(config: Config, library: str, name: str, keys: Iterable[str] = ()) -> Network:
    """Return the network of a configuration whose architecture is not declared.

    Args:
        config: a ``config.json``.
        library: the library that builds it.
        name: the library's name of the network.
        keys: the checkpoint's keys; empty for the tensors that the library stores.

    Raises:
        WeightsError: the library cannot build the network, or it cannot be run without data.
    """
    text, held = json.dumps(dict(config), sort_keys=True), frozenset(keys)
    beyond = LIBRARIES[library].beyond
    channels, *size = beyond.images(config)
    seen = _seen(text, library, (size[0], size[1]))
    logits = seen.outputs.get("logits")
    known = Observed(
        channels=channels,
        labels=logits[-1] if logits else 0,
        exact_gelu=bool(seen.kernels + seen.spelled_out),
        outputs=tuple(seen.outputs),
        gelus=seen.kernels + seen.spelled_out,
        kernels=seen.kernels,
        shapes_at=functools.partial(_shapes_at, text, library),
        unasked_size=seen.unasked_size,
    )
    kept = [tensor for tensor in seen.tensors if tensor.persistent or tensor.key in held]
    layout = derived(name, library, _stored(kept), *_names(seen, held))
    return Network(layout, library, config, known, CLASSIFIER if logits else "")


def _stored(tensors: Iterable[_Tensor]) -> Iterator[Stored]:
    """Yield the stored tensors; several in memory with one stored key are its rows."""
    held: dict[str, list[_Tensor]] = {}
    for tensor in tensors:
        held.setdefault(tensor.key, []).append(tensor)
    for key, parts in held.items():
        first, unused = parts[0], not any(part.used for part in parts)
        shape = (sum(part.shape[0] for part in parts), *first.shape[1:]) if parts[1:] else first.shape
        shapes = {part.name: part.shape for part in parts} if parts[1:] else {}
        yield Stored(key, shape, unused, first.kind, first.role, shapes)


def integers_and_tied(network: Network) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Build the model of a network without weights.

    Returns:
        The whole numbers that it stores, as its library computes them, by stored key; and, for every further
        stored key of one and the same tensor, the first one.
    """
    library = LIBRARIES[network.library]
    with tempfile.TemporaryDirectory(prefix="vconv-") as name:
        (Path(name) / CONFIG_FILE).write_text(json.dumps(dict(network.config)))
        model = library.build(Path(name), network)
    keys, whole = library.beyond.stored(model, network.config), library.beyond.whole(network.config)
    if whole is not None:
        model, keys = whole, {name: name for name in whole.state_dict()}
    found = model.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    tied = {keys[name]: first.setdefault(id(tensor), keys[name]) for name, tensor in found.items()}
    integers = {keys[name]: tensor for name, tensor in found.items() if not tensor.is_floating_point()}
    return integers, {key: other for key, other in tied.items() if key != other}


def _names(seen: _Seen, held: Collection[str]) -> tuple[dict[str, str], str]:
    """Return further names of the tensors, with their stored keys, and a pattern of names that are left out.

    A checkpoint may hold the network under a prefix, or without the first part of its names.
    """
    keys = [tensor.key for tensor in seen.tensors]
    needed = {tensor.key for tensor in seen.tensors if tensor.persistent and tensor.kind is not Kind.INTEGER}
    renamed = {tensor.name: tensor.key for tensor in seen.tensors if tensor.name not in keys}
    firsts = {key.partition(".")[0] for key in needed}
    common = f"{next(iter(firsts))}." if len(firsts) == 1 else ""
    prefix = common
    if held and not needed <= set(held):
        if common and {key.removeprefix(common) for key in needed} <= set(held):
            renamed |= {key.removeprefix(common): key for key in keys}
            prefix = ""
        else:
            last = max(needed, key=len)
            ends = [name.removesuffix(last) for name in held if name.endswith("." + last)]
            before = next((end for end in ends if {end + key for key in needed} <= set(held)), "")
            renamed |= {before + key: key for key in keys} if before else {}
            prefix = before or common
    left_out = rf"(?!{re.escape(prefix)}).*" if seen.one_of_several and prefix else ""
    return renamed, left_out


def _shapes_at(text: str, library: str, size: tuple[int, int]) -> Shapes:
    try:
        return _seen(text, library, size).outputs
    except WeightsError as error:
        raise InputError(
            "the network does not take images of this size",
            got=f"{size[0]}x{size[1]}: {error.got}",
            expected="a size that its library runs",
            fix="set the size that the network is made for in the configuration of its image processor",
        ) from error


def cut_off(network: Network, size: tuple[int, int]) -> int:
    """Return the side of the patches that images of a size are cut into if a rest is left; else 0."""
    return _seen(json.dumps(dict(network.config), sort_keys=True), network.library, size).cut_off


@functools.lru_cache(maxsize=64)
def _seen(text: str, library: str, size: tuple[int, int]) -> _Seen:
    """Build the model of a configuration without weights, and run it once without data."""
    config: Config = json.loads(text)
    beyond = LIBRARIES[library].beyond
    blank = Observed(0, 0, False, (), 0, 0, lambda size: MappingProxyType({}))
    nothing = Network(derived("", library, ()), library, config, blank, beyond.head(config))
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    model = models.built_without_weights(config, nothing, mode)
    unasked = beyond.unasked_size(model)
    if unasked and _runs(model, nothing, mode, (2 * unasked[0], unasked[1])):
        unasked = None
    nothing = replace(nothing, known=replace(blank, unasked_size=unasked))
    watch = Watch(dict(_state(model)))
    with models.running_without_data(model, nothing, mode), watch:
        given = LIBRARIES[library].run(model, nothing, torch.empty(_FRAMES, beyond.images(config)[0], *size))
        found = {name: tuple(map(int, given[name].shape)) for name in sorted(given, key=place_of)}
    used = watch.used_by([given[name] for name in found])
    _require_plain(library, watch, given)
    stored, whole = beyond.stored(model, config), beyond.whole(config)
    persistent, state = set(model.state_dict()), dict(_state(model))
    in_order = {**{name: state[name] for name in stored}, **state}
    tensors = tuple(
        _Tensor(
            name,
            stored.get(name, name),
            tuple(tensor.shape),
            kind=_kind(tensor),
            role=_role(model, name),
            persistent=name in persistent,
            used=name in used,
        )
        for name, tensor in in_order.items()
    )
    if whole:
        tensors = tuple(_with_unused(tensors, whole))
    several = beyond.is_one_of_several(model)
    return _Seen(tensors, found, watch.kernels, watch.spelled_out, several, unasked, watch.cut_off)


def _runs(model: nn.Module, network: Network, mode: FakeTensorMode, size: tuple[int, int]) -> bool:
    """Return whether a library runs a model on images of a size as it is, without being asked to."""
    try:
        with models.running_without_data(model, network, mode):
            LIBRARIES[network.library].run(model, network, torch.empty(1, CHANNELS, *size))
    except WeightsError:
        return False
    return True


def _with_unused(tensors: Iterable[_Tensor], whole: nn.Module) -> Iterator[_Tensor]:
    """Yield the tensors of a whole network in its order: those of the part that runs, and the unused ones."""
    known, persistent = {tensor.key: tensor for tensor in tensors}, set(whole.state_dict())
    for name, tensor in _state(whole):
        yield known.get(name) or _Tensor(
            name,
            name,
            tuple(tensor.shape),
            kind=Kind.NOT_BUILT if tensor.is_floating_point() else Kind.INTEGER,
            role=_role(whole, name),
            persistent=name in persistent,
            used=False,
        )


def _state(model: nn.Module) -> Iterable[tuple[str, torch.Tensor]]:
    """Yield every parameter and buffer: those of the state dict in its order, then the other buffers."""
    found = dict(model.state_dict(keep_vars=True))
    return {**found, **dict(model.named_buffers())}.items()


def _role(model: nn.Module, name: str) -> str:
    path, _, own = name.rpartition(".")
    return kind_of(model.get_submodule(path), own)


def _kind(tensor: torch.Tensor) -> Kind:
    if not tensor.is_floating_point():
        return Kind.INTEGER
    return Kind.PARAMETER if isinstance(tensor, nn.Parameter) else Kind.STATISTIC


def _require_plain(library: str, watch: Watch, given: Mapping[str, torch.Tensor]) -> None:
    """Refuse a network whose outputs are random, or that has none that vconv can name."""
    if watch.random:
        raise WeightsError(
            "the network draws random numbers when it runs",
            got=f"the operator {watch.random}",
            expected="the same outputs for the same image",
            fix="use an encoder without random masking: the same weights may load as one",
        )
    if not given:
        raise WeightsError(
            "the network has no output that vconv can name",
            got=f"no single tensor under a name of {library}",
            expected=f"one of {', '.join(OUTPUTS)}",
            fix="use an image encoder: features, a pooled vector or logits",
        )
