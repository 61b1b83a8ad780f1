"""Files that vconv knows by their names and cannot use for a system: a refusal says what they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vconv.convert.layouts.base import Layout


@dataclass(frozen=True)
class ForeignLayout:
    """A layout that is not declared in :mod:`vconv.convert.layouts.table`, or that is of another network.

    Args:
        name: what the checkpoint is, for messages.
        telling: names of tensors that, together, only this layout has.
        fix: what to do.
        home: the library of the declared layouts that look like it; they are not refused by its name.
        architectures: those whose declared layouts look like it, in the same way.
    """

    name: str
    telling: tuple[str, ...]
    fix: str
    home: str = ""
    architectures: tuple[str, ...] = ()


_HUB = "use the same weights as transformers or timm publish them: `vconv list` shows the repositories"
_OTHER = "name the system that these weights belong to: `vconv list` shows every system"

FOREIGN = (
    ForeignLayout(
        "a DINOv3 as its authors publish it",
        ("cls_token", "storage_tokens", "mask_token"),
        _OTHER,
        architectures=("dinov3",),
    ),
    ForeignLayout(
        "a DINOv2 as its authors publish it",
        ("cls_token", "pos_embed", "mask_token"),
        _OTHER,
        architectures=("dinov2",),
    ),
    ForeignLayout(
        "a ViT or a DINOv2 of timm",
        ("cls_token", "pos_embed", "patch_embed.proj.weight"),
        _OTHER,
        home="timm",
        architectures=("vit", "dinov2"),
    ),
    ForeignLayout(
        "a DINOv3 of timm",
        ("cls_token", "reg_token", "patch_embed.proj.weight"),
        _OTHER,
        home="timm",
        architectures=("dinov3",),
    ),
    ForeignLayout(
        "in the layout of OpenAI's CLIP, which is not read",
        ("visual.class_embedding", "visual.conv1.weight"),
        _HUB,
    ),
    ForeignLayout(
        "in the layout of Google's own ViT files, which is not read", ("cls", "embedding/kernel"), _HUB
    ),
)
"""The layouts, the most telling first. A new one is one row."""


def recognise(names: Iterable[str], wanted: Layout) -> ForeignLayout | None:
    """Return the foreign layout of a checkpoint that does not fit the wanted one; None if it is not known."""
    found = frozenset(names)
    name = wanted.architecture.name
    rows = (row for row in FOREIGN if row.home != wanted.home and name not in row.architectures)
    return next((row for row in rows if found.issuperset(row.telling)), None)
