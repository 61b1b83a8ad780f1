"""Derived layouts: layouts made from a state dict, for models without declared rules. Roles are not known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from vconv.convert.architectures.base import Architecture, Kind, Part
from vconv.convert.layouts.base import Layout, Rule

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
        parts: the tensors that the library makes of it in memory, which are its rows in this order, each with
            its dimensions; empty if it stays one tensor.
    """

    key: str
    shape: tuple[int, ...]
    unused: bool = False
    kind: Kind = Kind.PARAMETER
    role: str = ""
    parts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


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
        name: Part(tensor.role, shape, unused=tensor.unused, kind=tensor.kind)
        for tensor in tensors
        for name, shape in _parts(tensor).items()
    }
    architecture = Architecture(DERIVED, parts, frozenset())
    rules = tuple(Rule((tensor.key,), tuple(_parts(tensor))) for tensor in tensors)
    return Layout(family, home, architecture, rules, renamed=renamed or {}, left_out=left_out)


def _parts(tensor: Stored) -> Mapping[str, tuple[int, ...]]:
    return tensor.parts or {tensor.key: tensor.shape}
