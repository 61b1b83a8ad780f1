"""The table of patches. A new patch is one file and one row here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vconv.convert.network import Network
from vconv.convert.patches import gelu_erf, qkv_bias, rope_periods
from vconv.convert.patches.base import Patch

PATCHES: Mapping[str, Patch] = {
    patch.name: patch for patch in (gelu_erf.PATCH, rope_periods.PATCH, qkv_bias.PATCH)
}
"""Every patch, by name, in the order in which they are applied."""


def called_for(network: Network) -> list[Patch]:
    """List the patches that an architecture needs, without a look at the weights."""
    return [patch for patch in PATCHES.values() if patch.applies(network)]


def named(names: Iterable[str]) -> list[Patch]:
    """Return patches by name, in the table's order."""
    wanted = set(names)
    return [patch for name, patch in PATCHES.items() if name in wanted]
