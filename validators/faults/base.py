"""What a fault is: something made wrong on purpose, and the class that a validation must name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from vconv.convert.architectures.base import Capability
from vconv.convert.patches.base import Patch
from vconv.validators.faults.workshop import ArtifactCopy


def _everywhere(shop: ArtifactCopy) -> str:
    return ""


def _nothing(shop: ArtifactCopy) -> None:
    """Change no file: the fault is in a patch."""


@dataclass(frozen=True)
class Fault:
    """One fault: a row of the table.

    Args:
        name: what is wrong.
        kind: the class that must be named: see :mod:`vconv.validators.faults.classes`.
        inject: makes it in a copy of an artifact, whose hashes are made to fit afterwards.
        lacks: says why it cannot be made in an artifact; empty if it can.
        patches: what stands in place of patches while the variants are opened, by name.
        needs: what must be known of a network for it to be made in its artifact.
    """

    name: str
    kind: str
    inject: Callable[[ArtifactCopy], None] = _nothing
    lacks: Callable[[ArtifactCopy], str] = _everywhere
    patches: Mapping[str, Patch] = field(default_factory=dict)
    needs: tuple[Capability, ...] = ()

    def skipped(self, shop: ArtifactCopy) -> str:
        """Say why it cannot be made in an artifact; empty if it can."""
        return shop.network.lack(*self.needs) or self.lacks(shop)
