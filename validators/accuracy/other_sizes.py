"""Sizes of images at which no graph was traced: a graph for any size is judged at them too.

A trace can fix a length without a word. The graph then agrees with the reference at that size, and at no
other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np

from vconv.artifact.records import AxisRecord
from vconv.types import Array, Arrays
from vconv.validators.accuracy.limits import STRICT
from vconv.validators.accuracy.verdicts import judge

_TRACED = (5, 7)
"""Rows and columns of patches that are left out: :mod:`vconv.convert.graphs.tracing` traces with them."""
_IMAGES = (2, 1, 1)
"""The number of images at each of the sizes; at the gears of an offline model, one."""
_ENDS = 2
"""How many of the least gears, and of the greatest, an offline model is judged at."""


@dataclass(frozen=True)
class SizedReference:
    """The reference at another size than the image processor's.

    Args:
        pixel_values: float32 (N, 3, H, W).
        outputs: the reference's outputs (N, ...), by name.
    """

    pixel_values: Array
    outputs: Arrays

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        height, width = self.pixel_values.shape[2:]
        return height, width


def other_sizes(
    size: tuple[int, int],
    sides: tuple[AxisRecord, AxisRecord] | None,
    gears: Sequence[tuple[int, int]] = (),
) -> tuple[tuple[int, int], ...]:
    """Choose sizes to judge a graph at: flat, tall, and greater than the image processor's; none is square.

    Gears follow, because an offline model takes no other sizes: the least and the greatest of them.

    Args:
        size: (height, width) that the image processor makes.
        sides: the bounds of height and width; None for a graph that takes one size only.
        gears: the sizes that an offline model was compiled for.
    """
    if sides is None:
        return ()
    rows, columns = (side // bounds.multiple for side, bounds in zip(size, sides, strict=True))
    grids = [
        (rows // 2, columns + 1),
        (rows + 2, columns // 2),
        (rows + rows // 4 + 1, columns + columns // 4 + 2),
    ]
    found = [(high + 1, wide) if (high, wide) == _TRACED else (high, wide) for high, wide in grids]
    chosen = [(_within(high, sides[0]), _within(wide, sides[1])) for high, wide in found]
    others = [gear for gear in gears if gear != size]
    ends = [*others[:_ENDS], *others[_ENDS:][-_ENDS:]]
    return tuple(dict.fromkeys([*chosen, *ends]))


def _within(patches: int, bounds: AxisRecord) -> int:
    side = max(patches * bounds.multiple, bounds.least)
    return side if bounds.greatest is None else min(side, bounds.greatest)


def images_at(pixel_values: Array, sizes: Sequence[tuple[int, int]]) -> list[Array]:
    """Cut images of other sizes out of images that are repeated in both directions.

    Args:
        pixel_values: float32 (N, 3, H, W).
        sizes: the sizes that :func:`other_sizes` chose.
    """
    height, width = pixel_values.shape[2:]
    made = []
    for count, (high, wide) in zip(chain(_IMAGES, repeat(1)), sizes, strict=False):
        rows, columns = np.arange(high) % height, np.arange(wide) % width
        made.append(np.ascontiguousarray(pixel_values[:count][:, :, rows][..., columns]))
    return made


def differing(live: Sequence[SizedReference], recorded: Sequence[SizedReference]) -> Iterator[str]:
    """Yield how the reference at other sizes differs from what was recorded there."""
    if [one.size for one in live] != [one.size for one in recorded]:
        yield "it was recorded at other sizes than those at which a graph for any size is judged"
        return
    for here, there in zip(live, recorded, strict=True):
        size = "{}x{}".format(*here.size)
        if not np.array_equal(here.pixel_values, there.pixel_values):
            yield f"the images of {size} are not cut out of the recorded ones"
        for name, verdict in judge(here.outputs, there.outputs, STRICT["fp32", "fp32"]).items():
            if verdict.reasons:
                yield f"{name} at {size}: {verdict.reasons[0]}"
