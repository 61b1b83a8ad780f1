"""Derived layouts: layouts made from a state dict, for models without declared rules. Roles are unknown."""

from __future__ import annotations

from collections.abc import Mapping

from vconv.convert.architectures.base import Architecture, Part
from vconv.convert.layouts.base import Layout, one

DERIVED = "derived"
"""The name of the architecture of every derived layout."""


def derived(family: str, home: str, shapes: Mapping[str, tuple[int, ...]]) -> Layout:
    """Make the layout of a state dict: every tensor keeps its name and has no role.

    Args:
        family: the name of the layout.
        home: the library.
        shapes: the shape of each tensor by key, in the order of the file.
    """
    architecture = Architecture(DERIVED, {key: Part("", shape) for key, shape in shapes.items()}, frozenset())
    return Layout(family, home, architecture, tuple(one(key, key) for key in shapes))
