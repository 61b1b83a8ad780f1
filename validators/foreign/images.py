"""The images that a graph of another exporter may take, by what its input declares."""

from __future__ import annotations

from collections.abc import Sequence

from vconv.artifact.records import TensorRecord
from vconv.errors import InputError
from vconv.runtime.engines.adapted import Given, Levels, takes_whole_numbers
from vconv.types import CHANNELS
from vconv.validators.foreign.statement import Statement


def declared_layout(image: TensorRecord) -> str:
    """Return the order of the axes that an input declares; empty if it declares no length."""
    if image.shape[1] == CHANNELS and image.shape[3] != CHANNELS:
        return "NCHW"
    return "NHWC" if image.shape[3] == CHANNELS and image.shape[1] != CHANNELS else ""


def declared_size(image: TensorRecord, layout: str) -> tuple[int, int] | None:
    """Return the fixed (height, width) that an input declares; None if either is a symbol."""
    height, width = image.shape[2:] if layout != "NHWC" else image.shape[1:3]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def ways(
    image: TensorRecord, mean: Sequence[float], deviation: Sequence[float], stated: Statement
) -> list[Given]:
    """List the images that an input may take, the most usual first."""
    whole = takes_whole_numbers(image.dtype)
    declared = declared_layout(image)
    if stated.layout and declared and stated.layout != declared:
        raise _misstated(stated, f"layout = {stated.layout!r}", f"{declared}: {list(image.shape)}")
    if whole and stated.levels not in ("", Levels.GREY):
        raise _misstated(stated, f"levels = {stated.levels!r}", f"{Levels.GREY}: its input is {image.dtype}")
    layouts = [stated.layout] if stated.layout else [declared_layout(image)]
    layouts = layouts if layouts[0] else ["NCHW", "NHWC"]
    levels = [Levels.GREY] if whole else [Levels.NORMALISED, Levels.SHARES, Levels.GREY]
    levels = [Levels(stated.levels)] if stated.levels else levels
    return [
        Given(layout, image.dtype, level, tuple(mean), tuple(deviation))
        for layout in layouts
        for level in levels
    ]


def _misstated(stated: Statement, got: str, expected: str) -> InputError:
    return InputError(
        f"{stated.path} contradicts the graph", got=got, expected=expected, fix="correct the file"
    )
