"""`gelu-erf`: the exact GELU, written with ``erf``, because an NPU computes ``F.gelu`` in its tanh form.

torch_npu dispatches ``F.gelu`` to ``aclnnGelu``, which drops the ``approximate`` argument. The two forms
differ by up to 4.73e-4, at abs(x) = 2.70. A GELU that is written with ``erf`` does not call that kernel.
transformers has this form as the activation ``gelu_python``, so that config.json alone carries the patch.
timm has no such activation, so that for timm the graphs and ``vconv.load`` carry the patch.

In a graph, it also matters how x / sqrt(2) is written. CANN's graph compiler is published to recognise a
division by sqrt(2) before an ``Erf``, and to replace the whole GELU by its tanh form (GeluONNXFusionPass). It
does not recognise a multiplication by 1 / sqrt(2). ``gelu_python`` divides, so that graphs are always traced
from the form of this module.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vconv.convert.libraries.readers import network as read_network
from vconv.convert.libraries.table import library_of
from vconv.convert.network import Network
from vconv.convert.patches import gelu_calls
from vconv.convert.patches.base import Carrier, Patch, Site, Undo
from vconv.errors import WeightsError
from vconv.types import Config

_INVERSE_ROOT = 1.0 / math.sqrt(2.0)


def gelu_erf(x: Tensor) -> Tensor:
    """Compute x * (1 + erf(x / sqrt(2))) / 2 in at least float32 (Hendrycks and Gimpel, 2016, section 2).

    The division is written as a multiplication: see the module.
    """
    wide = x if x.dtype in (torch.float32, torch.float64) else x.float()
    return (0.5 * wide * (1.0 + torch.erf(wide * _INVERSE_ROOT))).to(x.dtype)


class GeluErf(nn.Module):
    """The exact GELU without a GELU kernel, for tensors of any shape."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply :func:`gelu_erf`."""
        return gelu_erf(x)


class _Executed(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the names of the operators that run."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def _spelled_out(activation: nn.Module) -> bool:
    """Return whether an activation uses ``erf`` and no GELU kernel. It is run on a tensor without data."""
    with torch.no_grad(), _Executed() as executed:
        activation(torch.empty(8, device="meta"))
    return "erf" in executed.names and "gelu" not in executed.names


def _replace(parent: nn.Module, name: str, make: Callable[[], nn.Module]) -> Undo:
    original = getattr(parent, name)
    setattr(parent, name, make())
    return functools.partial(setattr, parent, name, original)


def _places(model: nn.Module, network: Network) -> Iterator[tuple[str, nn.Module, str, nn.Module]]:
    """Yield path, parent, name in the parent, and module of every exact GELU, in either form."""
    exact = library_of(network).exact_gelus()
    for path, parent in model.named_modules():
        for name, child in parent.named_children():
            if isinstance(child, exact) and getattr(child, "approximate", "none") == "none":
                yield f"{path}.{name}".lstrip("."), parent, name, child


def _sites(model: nn.Module, network: Network) -> list[Site]:
    if network.observed:
        return gelu_calls.sites(model, network, gelu_erf, also_spelled_out=False)
    return [
        Site(path, _spelled_out(child), functools.partial(_replace, parent, name, GeluErf))
        for path, parent, name, child in _places(model, network)
    ]


def _replacements(make: Callable[[], nn.Module], model: nn.Module, network: Network) -> list[Site]:
    """List every exact GELU as a place to put another module in, even if the GELU is spelled out already."""
    if network.observed:
        return gelu_calls.sites(model, network, make(), also_spelled_out=True)
    return [
        Site(path, False, functools.partial(_replace, parent, name, make))
        for path, parent, name, _ in _places(model, network)
    ]


def _edit(network: Network, config: dict[str, Any]) -> dict[str, Any]:
    if "config" not in _carriers(network):
        return config
    return dict(library_of(network).beyond.spelled_out(config))


def _carriers(network: Network) -> tuple[Carrier, ...]:
    if network.observed:
        by_config = _spelled_out_by(library_of(network).beyond.spelled_out(network.config))
    else:
        by_config = network.library == "transformers"
    return ("config", "graph") if by_config else ("graph", "vconv.load")


def _spelled_out_by(config: Config) -> bool:
    """Return whether the model of an edited configuration runs no kernel of the exact GELU."""
    try:
        observed = read_network(config).observed
    except WeightsError:  # the model's code does not know the form that other models take from there
        return False
    return not (observed and observed.kernels)


def _expected(network: Network) -> int:
    """Return the number of places; by the declared architecture, whatever the configuration's activation."""
    return network.gelus if network.observed else network.blocks


def _left(model: nn.Module, network: Network) -> int:
    return gelu_calls.left(model, network) if network.observed else 0


PATCH = Patch(
    name="gelu-erf",
    reason="an NPU computes F.gelu in its tanh form, even if the exact form is requested",
    corrective=False,
    carriers=_carriers,
    applies=lambda network: network.known.exact_gelu,
    expected=_expected,
    sites=_sites,
    edit_config=_edit,
    traced_sites=functools.partial(_replacements, GeluErf),
    left=_left,
)


def realised_by(make: Callable[[], nn.Module]) -> Patch:
    """Return the same patch with another replacement module, such as a device's native exact GELU.

    Args:
        make: makes the module, which takes a tensor of any shape.
    """
    return replace(PATCH, sites=functools.partial(_replacements, make))
