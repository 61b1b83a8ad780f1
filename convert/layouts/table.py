"""The table of layouts. A new layout is one file and one row here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vconv.convert.layouts import dinov2, dinov3_vit, timm_vit, vit
from vconv.convert.layouts.base import CLASSIFIER, Layout, Network
from vconv.errors import UnknownNameError
from vconv.types import Config

LAYOUTS: Mapping[str, Layout] = {
    layout.family: layout
    for layout in (dinov3_vit.LAYOUT, dinov2.LAYOUT, vit.LAYOUT, timm_vit.DINOV3, timm_vit.DINOV2)
}
"""Every layout, by family."""


def find_layout(config: Config) -> Layout:
    """Choose the layout that a configuration names.

    Raises:
        UnknownNameError: vconv has no layout for it.
    """
    for layout in LAYOUTS.values():
        if layout.describes(config):
            return layout
    name = str(config.get("architecture") or config.get("model_type") or "")
    raise UnknownNameError("architecture", name, LAYOUTS, fix="use a checkpoint of a listed system")


def network(config: Config, keys: Iterable[str] = ()) -> Network:
    """Make a network of a configuration, and the head that a checkpoint has.

    Args:
        config: a ``config.json``.
        keys: the checkpoint's keys; none for the layout's own default head.

    Raises:
        UnknownNameError: vconv has no layout for it.
        WeightsError: the configuration lacks a number, or asks for what the layout does not have.
    """
    layout = find_layout(config)
    heads = {slot.head: slot.key for slot in layout.slots if slot.head and slot.key.endswith(".weight")}
    numbers = layout.numbers(config)
    classified = CLASSIFIER in numbers.flags or heads.get(CLASSIFIER) in frozenset(keys)
    head = CLASSIFIER if classified else "pooler" if "pooler" in heads else ""
    return Network(layout, config, numbers, head)
