"""The operators that a network calls, recorded by a run without data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vconv.convert.libraries import models
from vconv.convert.libraries.table import LIBRARIES
from vconv.convert.network import Network


@dataclass(frozen=True)
class Step:
    """One call of an operator.

    Args:
        operator: the operator of torch.
        given: its arguments, by place.
        options: its arguments, by name.
        results: the tensors that it returned.
    """

    operator: Any
    given: tuple[Any, ...]
    options: Mapping[str, Any]
    results: tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Tape:
    """What a run called.

    Args:
        tensors: the tensors of the network, each with its stored key.
        images: the images that it was run on.
        steps: the calls, in order.
    """

    tensors: tuple[tuple[str, torch.Tensor], ...]
    images: torch.Tensor
    steps: tuple[Step, ...]


class Recorder(TorchDispatchMode):
    """Records every call of an operator while it is active."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[Step] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = tuple(leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor))
        self.steps.append(Step(func, args, kwargs or {}, tensors))
        return result


def record(network: Network) -> Tape:
    """Build a network whose architecture is not declared without weights, run it, and record the run."""
    library = LIBRARIES[network.library]
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    model = models.built_without_weights(network.config, network, mode)
    keys, state = library.beyond.stored(model, network.config), model.state_dict(keep_vars=True)
    with mode:
        images = torch.empty(1, *library.beyond.images(network.config))
    recorder = Recorder()
    with models.running_without_data(model, network, mode), recorder:
        library.run(model, network, images)
    return Tape(tuple((keys[name], tensor) for name, tensor in state.items()), images, tuple(recorder.steps))
