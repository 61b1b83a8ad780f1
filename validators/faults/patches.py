"""Faults of a patch: the patch does something other than declared, and no file is wrong."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

from torch import nn

from vconv.convert.architectures.base import Capability
from vconv.convert.network import Network
from vconv.convert.patches import gelu_erf, rope_periods
from vconv.convert.patches.base import Patch, Site, Undo
from vconv.validators.faults.base import Fault


def _tanh(parent: Any, name: str) -> Undo:
    before = getattr(parent, name)
    setattr(parent, name, nn.GELU(approximate="tanh"))
    return functools.partial(setattr, parent, name, before)


def _tanh_sites(model: nn.Module, network: Network) -> list[Site]:
    sites = []
    for site in gelu_erf.PATCH.sites(model, network):
        path, _, name = site.name.rpartition(".")
        sites.append(Site(site.name, False, functools.partial(_tanh, model.get_submodule(path), name)))
    return sites


def _idle_sites(model: nn.Module, network: Network) -> list[Site]:
    return [replace(site, done=True) for site in rope_periods.PATCH.sites(model, network)]


def _only(name: str, patch: Patch) -> dict[str, Patch]:
    return {name: patch}


FAULTS = (
    Fault(
        "tanh GELU by a patch",
        "activation",
        lacks=lambda shop: "" if shop.applies(gelu_erf.PATCH.name) else "it has no exact GELU",
        patches=_only("gelu-erf", replace(gelu_erf.PATCH, sites=_tanh_sites)),
        named_by=(Capability.BLOCKS,),
    ),
    Fault(
        "a patch that leaves the periods untruncated",
        "rope periods",
        lacks=lambda shop: "" if shop.applies(rope_periods.PATCH.name) else "no patch truncates its periods",
        patches=_only("rope-periods", replace(rope_periods.PATCH, sites=_idle_sites)),
    ),
)
