"""Layouts that vconv recognises by their names and does not read, so that a refusal can name them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vconv.convert.layouts.base import Layout


@dataclass(frozen=True)
class ForeignLayout:
    """A layout that is not declared in :mod:`vconv.convert.layouts.table`.

    Args:
        name: its name in messages.
        telling: names of tensors that, together, only this layout has.
        home: the library of the declared layouts that look like it; they are not refused by its name.
        fix: where to find the same weights in a layout that is read.
    """

    name: str
    telling: tuple[str, ...]
    fix: str
    home: str = ""


_HUB = "use the same weights as transformers or timm publish them: `vconv list` shows the repositories"

FOREIGN = (
    ForeignLayout("Meta's own DINOv3 layout", ("cls_token", "storage_tokens", "mask_token"), _HUB),
    ForeignLayout("Meta's own DINOv2 layout", ("cls_token", "pos_embed", "mask_token"), _HUB),
    ForeignLayout(
        "the layout of timm's and the authors' own ViT files",
        ("cls_token", "pos_embed", "patch_embed.proj.weight"),
        _HUB,
        home="timm",
    ),
    ForeignLayout(
        "the layout of timm's DINOv3 files",
        ("cls_token", "reg_token", "patch_embed.proj.weight"),
        _HUB,
        "timm",
    ),
    ForeignLayout("the layout of OpenAI's CLIP", ("visual.class_embedding", "visual.conv1.weight"), _HUB),
    ForeignLayout("the layout of Google's own ViT files", ("cls", "embedding/kernel"), _HUB),
)
"""The layouts, the most telling first. A new one is one row."""


def recognise(names: Iterable[str], wanted: Layout) -> ForeignLayout | None:
    """Return the foreign layout of a checkpoint that does not fit the wanted one; None if it is not known."""
    found = frozenset(names)
    rows = (row for row in FOREIGN if row.home != wanted.home or not row.home)
    return next((row for row in rows if found.issuperset(row.telling)), None)
