"""Kinds of torch variants, and their names: ``patched-torch-autocast-bf16-captured``.

A name has three parts: the kind, which is a set of patches; the precision; and whether the variant is
captured. A new kind is one row of the table. This module imports no large libraries.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from vconv.precisions import FP32

ENGINE = "torch"
"""The part of a name that marks a torch variant."""
CAPTURED = "captured"
"""The last part of a captured variant's name: its forward pass is captured as one graph and replayed."""


@dataclass(frozen=True)
class TorchKind:
    """A kind of torch variant.

    Args:
        name: the first part of a variant's name.
        patches: selects the variant's patches from the names of the artifact's patches. None for the
            original, which is loaded from the original weights and is not part of the artifact.
        fused: whether its blocks are replaced by fused ones, made of the same weights when it is loaded.
    """

    name: str
    patches: Callable[[Collection[str]], Collection[str]] | None
    fused: bool = False


ORIGINAL, PATCHED, FUSED = "original", "patched", "fused"
_IN_A_FUSED_BLOCK = frozenset({"gelu-erf", "qkv-bias"})
"""Patches of what a fused block replaces."""
TORCH_KINDS: dict[str, TorchKind] = {
    kind.name: kind
    for kind in (
        TorchKind(ORIGINAL, None),
        TorchKind(PATCHED, lambda applied: applied),
        TorchKind(
            FUSED, lambda applied: [one for one in applied if one not in _IN_A_FUSED_BLOCK], fused=True
        ),
    )
}
"""Every kind, by name."""


def kinds_in_artifact() -> list[TorchKind]:
    """Return the kinds that are loaded from an artifact's weights."""
    return [kind for kind in TORCH_KINDS.values() if kind.patches is not None]


@dataclass(frozen=True)
class TorchName:
    """The parts of a torch variant's name.

    Args:
        kind: a name in :data:`TORCH_KINDS`.
        precision: the name of the precision that the variant runs in.
        captured: whether the variant is captured and replayed.
    """

    kind: str
    precision: str
    captured: bool = False

    def __str__(self) -> str:
        """Return the name as text; :meth:`read` parses it."""
        return "-".join((self.kind, ENGINE, self.precision, *((CAPTURED,) if self.captured else ())))

    @classmethod
    def read(cls, name: str) -> TorchName | None:
        """Parse a name; None if it is not a torch variant's. Does not check that the precision exists."""
        kind, torch, rest = name.partition(f"-{ENGINE}-")
        precision = rest.removesuffix(f"-{CAPTURED}")
        if kind not in TORCH_KINDS or not torch or not precision:
            return None
        return cls(kind, precision, precision != rest)


PATCHED_FP32 = str(TorchName(PATCHED, FP32))
"""The torch variant in every artifact's manifest; other kinds and precisions are derived from its record."""
