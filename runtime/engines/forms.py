"""The ways in which a graph may lay out an output. This module imports no large library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vconv.types import Array


def _as_it_is(value: Array) -> Array:
    return value


def _map_as_tokens(value: Array) -> Array:
    """Turn (B, D, rows, columns) into (B, rows x columns, D)."""
    return value.reshape(*value.shape[:2], -1).swapaxes(1, 2)


def _last_map_as_tokens(value: Array) -> Array:
    """Turn (B, rows, columns, D) into (B, rows x columns, D)."""
    return value.reshape(len(value), -1, value.shape[-1])


def _without_ones(value: Array) -> Array:
    """Leave out axes of length 1 after the batch."""
    return value.reshape(len(value), *(length for length in value.shape[1:] if length != 1))


@dataclass(frozen=True)
class Form:
    """A way in which a graph may lay out an output.

    Args:
        read: turns the graph's output into the form that vconv's outputs have.
        axes: the number of axes that it takes; None for any.
        meaning: what it is, in words; empty for the usual form.
    """

    read: Callable[[Array], Array]
    axes: int | None
    meaning: str


FORMS: Mapping[str, Form] = {
    "": Form(_as_it_is, None, ""),
    "map": Form(_map_as_tokens, 4, "a map (D, rows, columns)"),
    "map, channels last": Form(_last_map_as_tokens, 4, "a map (rows, columns, D)"),
    "axes of one": Form(_without_ones, None, "with axes of length 1"),
}
"""Every form, by name."""
