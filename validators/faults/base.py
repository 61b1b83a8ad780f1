"""A fault: a defect that is injected on purpose, and the class of fault that a validation must name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from vconv.convert.architectures.base import Capability
from vconv.convert.patches.base import Patch
from vconv.validators.faults.workshop import ArtifactCopy


def _everywhere(shop: ArtifactCopy) -> str:
    return ""


def _nothing(shop: ArtifactCopy) -> None:
    """Change no file: the fault lies in a patch."""


@dataclass(frozen=True)
class Fault:
    """One fault: a row of the table.

    Args:
        name: what is wrong, in words.
        kind: the class of fault that a validation must name: see :mod:`vconv.validators.faults.classes`.
        inject: injects the fault into a copy of an artifact, whose hashes are updated afterwards.
        lacks: returns why the fault cannot be injected into an artifact; empty if it can.
        patches: by name, the patches that are replaced while the variants are opened.
        needs: the features of the network that the fault requires.
        of_blocks: whether only an artifact with outputs of single blocks can have the fault.
        any_size: whether only a graph for images of any size can have the fault.
        of_reduced: whether only a graph in reduced precision can have the fault.
        named_by: the features without which a validation catches the fault, but cannot name it.
    """

    name: str
    kind: str
    inject: Callable[[ArtifactCopy], None] = _nothing
    lacks: Callable[[ArtifactCopy], str] = _everywhere
    patches: Mapping[str, Patch] = field(default_factory=dict)
    needs: tuple[Capability, ...] = ()
    of_blocks: bool = False
    any_size: bool = False
    of_reduced: bool = False
    named_by: tuple[Capability, ...] = ()

    def expected(self, shop: ArtifactCopy) -> str:
        """Return the class of fault that a validation of an artifact must name; empty if it cannot."""
        return "" if shop.network.lack(*self.named_by) else self.kind

    def skipped(self, shop: ArtifactCopy) -> str:
        """Return why the fault cannot be injected into an artifact; empty if it can."""
        one_size = self.any_size and shop.made.sides is None
        return "its graphs take one size" if one_size else shop.network.lack(*self.needs) or self.lacks(shop)
