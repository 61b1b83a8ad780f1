"""Kinds of torch variants, and their names: ``patched-torch-autocast-bf16-captured``.

A name has three parts: the kind, which is a set of patches, the precision, and whether it is captured. A new
kind is one row of the table. Nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from vconv.precisions import FP32

ENGINE = "torch"
"""The part of a name that makes it one of torch's."""
CAPTURED = "captured"
"""The last part of a name: its forward pass is captured as one graph and replayed."""


@dataclass(frozen=True)
class TorchKind:
    """A kind of torch variant.

    Args:
        name: the first part of a variant's name.
        patches: picks its patches, given the names of those that the artifact was made with; None for the
            original, which is loaded from its own weights and is no part of the artifact.
    """

    name: str
    patches: Callable[[Collection[str]], Collection[str]] | None


ORIGINAL, PATCHED = "original", "patched"
TORCH_KINDS: dict[str, TorchKind] = {
    kind.name: kind
    for kind in (
        TorchKind(ORIGINAL, None),
        TorchKind(PATCHED, lambda applied: applied),
    )
}
"""Every kind, by name."""


def kinds_in_artifact() -> list[TorchKind]:
    """Return the kinds that are made of an artifact's own weights."""
    return [kind for kind in TORCH_KINDS.values() if kind.patches is not None]


@dataclass(frozen=True)
class TorchName:
    """What the name of a torch variant says.

    Args:
        kind: a name of :data:`TORCH_KINDS`.
        precision: the name of what it runs in.
        captured: whether it is captured and replayed.
    """

    kind: str
    precision: str
    captured: bool = False

    def __str__(self) -> str:
        """Write the name; :meth:`read` reads it."""
        return "-".join((self.kind, ENGINE, self.precision, *((CAPTURED,) if self.captured else ())))

    @classmethod
    def read(cls, name: str) -> TorchName | None:
        """Read a name; None if it is no torch variant's. Whether the precision exists is not looked at."""
        kind, torch, rest = name.partition(f"-{ENGINE}-")
        precision = rest.removesuffix(f"-{CAPTURED}")
        if kind not in TORCH_KINDS or not torch or not precision:
            return None
        return cls(kind, precision, precision != rest)


PATCHED_FP32 = str(TorchName(PATCHED, FP32))
"""The variant that every artifact's manifest lists for torch; other kinds and precisions are made of it."""
