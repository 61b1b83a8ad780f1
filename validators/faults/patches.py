"""Faults of a patch: the patch does something other than declared, and no file is wrong."""

from __future__ import annotations

import functools
from dataclasses import replace

from torch import nn

from vconv.convert.architectures.base import Capability
from vconv.convert.architectures.outputs import gelus_needed
from vconv.convert.network import Network
from vconv.convert.patches import gelu_erf, rope_periods
from vconv.convert.patches.base import Patch, Site
from vconv.validators.faults.base import Fault
from vconv.validators.faults.workshop import ArtifactCopy

_TANH = gelu_erf.realised_by(functools.partial(nn.GELU, approximate="tanh"))


def _without_gelu(shop: ArtifactCopy) -> str:
    there = shop.applies(gelu_erf.PATCH.name) and gelus_needed(shop.network)
    return "" if there else "no output of it needs an exact GELU"


def _idle_sites(model: nn.Module, network: Network) -> list[Site]:
    return [replace(site, done=True) for site in rope_periods.PATCH.sites(model, network)]


def _only(name: str, patch: Patch) -> dict[str, Patch]:
    return {name: patch}


FAULTS = (
    Fault(
        "tanh GELU by a patch",
        "activation",
        lacks=_without_gelu,
        patches=_only("gelu-erf", _TANH),
        named_by=(Capability.BLOCKS,),
    ),
    Fault(
        "a patch that leaves the periods untruncated",
        "rope periods",
        lacks=lambda shop: "" if shop.applies(rope_periods.PATCH.name) else "no patch truncates its periods",
        patches=_only("rope-periods", replace(rope_periods.PATCH, sites=_idle_sites)),
    ),
)
