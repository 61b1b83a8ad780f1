"""What a variant takes and gives: the shapes of its input and outputs, and the bounds of their axes.

The names of the axes are those of :mod:`vconv.types`. A variant for images of one size has the batch alone as
a symbol, or no symbol.
"""

from __future__ import annotations

from dataclasses import dataclass

from vconv.artifact.records import AxisRecord
from vconv.convert.architectures.outputs import output_shapes, shapes_at_any_size
from vconv.convert.architectures.sizes import size_bounds
from vconv.convert.graphs.image_input import GREATEST_IMAGE_SIDE
from vconv.convert.network import Network
from vconv.types import (
    BATCH_AXIS,
    COLUMNS_AXIS,
    HEIGHT_AXIS,
    IMAGES,
    INPUT,
    PATCHES_AXIS,
    ROWS_AXIS,
    TOKENS_AXIS,
    WIDTH_AXIS,
    finer_axis,
)

Shape = tuple[int | str, ...]


@dataclass(frozen=True)
class Interface:
    """The shapes of a variant of a network.

    Args:
        network: the network.
        size: (height, width) of the images that the image processor makes.
        batch: the fixed batch size; None if the variant takes any.
        any_size: whether the variant takes pixel values of any size.
        from_images: whether the variant preprocesses images itself, which may have any size.
    """

    network: Network
    size: tuple[int, int]
    batch: int | None = None
    any_size: bool = False
    from_images: bool = False

    @property
    def input(self) -> str:
        """The name of the input."""
        return IMAGES if self.from_images else INPUT

    @property
    def dtype(self) -> str:
        """The type of the input."""
        return "uint8" if self.from_images else "float32"

    @property
    def layout(self) -> str:
        """The order of the input's axes."""
        return "NHWC" if self.from_images else "NCHW"

    @property
    def taken(self) -> Shape:
        """The shape of the images."""
        if self.from_images:
            return (self.batch or BATCH_AXIS, HEIGHT_AXIS, WIDTH_AXIS, self.network.known.channels)
        sides = (HEIGHT_AXIS, WIDTH_AXIS) if self.any_size else self.size
        return (self.batch or BATCH_AXIS, self.network.known.channels, *sides)

    @property
    def given(self) -> dict[str, Shape]:
        """The shape of each output, by name."""
        if self.any_size:
            found = shapes_at_any_size(self.network)
        else:
            found = {name: shape[1:] for name, shape in output_shapes(self.network, 1, self.size).items()}
        return {name: (self.batch or BATCH_AXIS, *shape) for name, shape in found.items()}

    @property
    def sides(self) -> tuple[AxisRecord, AxisRecord] | None:
        """The bounds of height and width; None for images of one size."""
        axes = self.axes(None)
        return (axes[HEIGHT_AXIS], axes[WIDTH_AXIS]) if self.any_size else None

    def axes(self, greatest_batch: int | None) -> dict[str, AxisRecord]:
        """Return the bounds of every symbol in the shapes.

        Args:
            greatest_batch: the greatest batch; None if only memory limits it.
        """
        sides = size_bounds(self.network) if self.any_size else None
        known = {BATCH_AXIS: AxisRecord(least=1, greatest=greatest_batch)}
        if sides:
            side = AxisRecord(least=sides.least, greatest=sides.greatest, multiple=sides.multiple)
            least, greatest = ((number // sides.multiple) ** 2 for number in (sides.least, sides.greatest))
            prefix = 1 + self.network.registers
            rows = AxisRecord(least=sides.least // sides.multiple, greatest=sides.greatest // sides.multiple)
            known |= {
                HEIGHT_AXIS: side,
                WIDTH_AXIS: side,
                **{
                    finer_axis(axis, cells): AxisRecord(
                        least=rows.least * cells, greatest=(rows.greatest or 0) * cells, multiple=cells
                    )
                    for axis in (ROWS_AXIS, COLUMNS_AXIS)
                    for cells in (2**halved for halved in range(max(1, len(self.network.stages))))
                },
                PATCHES_AXIS: AxisRecord(least=least, greatest=greatest),
                TOKENS_AXIS: AxisRecord(least=least + prefix, greatest=greatest + prefix),
            }
        if self.from_images:
            known |= dict.fromkeys(
                (HEIGHT_AXIS, WIDTH_AXIS), AxisRecord(least=1, greatest=GREATEST_IMAGE_SIDE)
            )
        used = {axis for shape in (self.taken, *self.given.values()) for axis in shape}
        return {name: bounds for name, bounds in known.items() if name in used}
