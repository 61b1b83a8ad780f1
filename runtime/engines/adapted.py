"""Sessions of graphs that take other images, or give other outputs, than vconv's own graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from vconv.runtime.engines.base import FileSession, Session
from vconv.runtime.engines.forms import FORMS
from vconv.types import Array

_GREATEST = 255
"""The greatest grey level."""


class Levels(StrEnum):
    """What the values of a graph's input are."""

    NORMALISED = "normalised"
    """Grey levels from 0 to 1, less the mean, divided by the standard deviation."""
    SHARES = "0 to 1"
    GREY = "0 to 255"


def takes_whole_numbers(dtype: str) -> bool:
    """Return whether the values of an input of this type are whole numbers."""
    return np.issubdtype(np.dtype(dtype), np.integer)


def on_whole_levels(pixel_values: Array, mean: Sequence[float], deviation: Sequence[float]) -> Array:
    """Return normalised images with their grey levels rounded, which a graph of whole numbers can be given.

    Args:
        pixel_values: normalised images, float32 (B, 3, H, W).
        mean: the mean of each channel that normalisation subtracted, from grey levels of 0 to 1.
        deviation: the standard deviation of each channel, by which it divided.

    Returns:
        float32 (B, 3, H, W).
    """
    offset, scale = _of_channels(mean), _of_channels(deviation)
    levels = np.rint(_GREATEST * (pixel_values * scale + offset)).clip(0, _GREATEST)
    rounded: Array = ((levels / _GREATEST - offset) / scale).astype(np.float32)
    return rounded


def _of_channels(values: Sequence[float]) -> Array:
    return np.array(values, np.float64).reshape(1, -1, 1, 1)


@dataclass(frozen=True)
class View:
    """Where one of vconv's outputs is in an output of a graph.

    Args:
        output: the graph's name of its output.
        form: how the graph lays it out, of :data:`FORMS`.
        tokens: the first token and the one after the last, of an output with tokens; None for all of it.
            One token alone loses its axis if ``single``.
        single: whether it is one token.
    """

    output: str
    form: str = ""
    tokens: tuple[int, int | None] | None = None
    single: bool = False

    def read(self, outputs: Mapping[str, Array]) -> Array:
        """Return the output as float32, from the graph's outputs by name."""
        value = FORMS[self.form].read(outputs[self.output])
        if self.tokens is not None:
            value = value[:, self.tokens[0]] if self.single else value[:, slice(*self.tokens)]
        return np.ascontiguousarray(value, np.float32)


@dataclass(frozen=True)
class Given:
    """The images that a graph takes.

    Args:
        layout: the order of the axes, ``NCHW`` or ``NHWC``.
        dtype: the type of the values, such as ``float32`` or ``uint8``.
        levels: what the values are.
        mean: the mean of each channel that normalisation subtracts, from grey levels of 0 to 1.
        deviation: the standard deviation of each channel, by which it divides.
    """

    layout: str
    dtype: str
    levels: Levels
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def made(self, pixel_values: Array) -> Array:
        """Return normalised images, float32 (B, 3, H, W), as the graph takes them."""
        value = pixel_values
        if self.levels is not Levels.NORMALISED:
            value = value * _of_channels(self.deviation) + _of_channels(self.mean)
        if self.levels is Levels.GREY:
            value = _GREATEST * value
        if takes_whole_numbers(self.dtype):
            value = np.rint(value).clip(0, _GREATEST)
        if self.layout == "NHWC":
            value = value.transpose(0, 2, 3, 1)
        return np.ascontiguousarray(value, self.dtype)


class AdaptedSession(Session):
    """A graph that is run as if it had vconv's input and outputs.

    What is converted is converted before and after a run, so that its time is that of the graph alone.

    Args:
        inner: the opened graph. It is closed with this session.
        given: the images that it takes.
        views: where vconv's outputs are in those of the graph, by vconv's names.
    """

    def __init__(self, inner: FileSession, given: Given, views: Mapping[str, View]) -> None:
        super().__init__(inner.folder, inner.size, inner.batch)
        self.inner, self.engine, self.threads = inner, inner.engine, inner.threads
        self._given, self._views = given, views
        self._closing.callback(inner.close)

    def bind(self, pixel_values: Array) -> Callable[[], Any]:
        """See :meth:`vconv.runtime.engines.base.Session.bind`."""
        self._check_open()
        return self.inner.bind(self._given.made(pixel_values))

    def fetch(self, raw: Any) -> dict[str, Array]:
        """See :meth:`vconv.runtime.engines.base.Session.fetch`."""
        found = self.inner.fetch(raw)
        self.fallbacks = self.inner.fallbacks
        self.placed = {
            name: self.inner.placed[view.output]
            for name, view in self._views.items()
            if view.output in self.inner.placed
        }
        return {name: view.read(found) for name, view in self._views.items()}
