"""Derived layouts: layouts made from a state dict, for models without declared rules. Roles are not known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vconv.convert.architectures.base import Architecture, Kind, Part
from vconv.convert.layouts.base import Layout, one

DERIVED = "derived"
"""The name of the architecture of every derived layout."""


@dataclass(frozen=True)
class Stored:
    """One tensor of a state dict.

    Args:
        key: its stored key.
        shape: its dimensions.
        unused: whether inference does not use it.
        kind: what it is.
        role: what it is by its module: see :mod:`vconv.convert.libraries.module_kinds`.
    """

    key: str
    shape: tuple[int, ...]
    unused: bool = False
    kind: Kind = Kind.PARAMETER
    role: str = ""


def derived(
    family: str,
    home: str,
    tensors: Iterable[Stored],
    renamed: Mapping[str, str] | None = None,
    left_out: str = "",
) -> Layout:
    """Make the layout of a state dict: every tensor keeps its name, and has no role in the network.

    Args:
        family: the name of the layout.
        home: the library.
        tensors: the tensors, in the order of the file.
        renamed: further names of these tensors: see :class:`.Layout`.
        left_out: a pattern of names that are not part of the network: see :class:`.Layout`.
    """
    tensors = tuple(tensors)
    parts = {
        tensor.key: Part(tensor.role, tensor.shape, unused=tensor.unused, kind=tensor.kind)
        for tensor in tensors
    }
    architecture = Architecture(DERIVED, parts, frozenset())
    rules = tuple(one(key, key) for key in parts)
    return Layout(family, home, architecture, rules, renamed=renamed or {}, left_out=left_out)
