from __future__ import annotations

import numpy as np
import pytest

from vconv.artifact.records import AxisRecord
from vconv.validators.accuracy.other_sizes import SizedReference, differing, images_at, other_sizes

SIDE = AxisRecord(least=32, greatest=8192, multiple=16)


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        ((14, 14), [(7, 15), (16, 7), (18, 19)]),
        ((4, 4), [(2, 5), (6, 2), (6, 7)]),
        ((11, 6), [(6, 7), (13, 3), (14, 9)]),
        ((3, 2), [(2, 3), (5, 2), (4, 4)]),
        ((512, 512), [(256, 512), (512, 256), (512, 512)]),
    ],
)
def test_the_sizes_are_flat_tall_and_greater(grid: tuple[int, int], expected: list[tuple[int, int]]) -> None:
    found = other_sizes((16 * grid[0], 16 * grid[1]), (SIDE, SIDE))
    assert found == tuple((16 * rows, 16 * columns) for rows, columns in expected)


def test_a_graph_of_one_size_has_none() -> None:
    assert other_sizes((224, 224), None) == ()


def test_images_are_repeated_and_cut() -> None:
    pixel_values = np.arange(3 * 3 * 4 * 4, dtype=np.float32).reshape(3, 3, 4, 4)
    found = images_at(pixel_values, [(2, 6), (7, 3), (4, 4)])
    assert [image.shape for image in found] == [(2, 3, 2, 6), (1, 3, 7, 3), (1, 3, 4, 4)]
    tiled = np.tile(pixel_values, (1, 1, 2, 2))
    np.testing.assert_array_equal(found[0], tiled[:2, :, :2, :6])
    np.testing.assert_array_equal(found[1], tiled[:1, :, :7, :3])


def one(size: tuple[int, int] = (4, 6), images: float = 1.0, outputs: float = 1.0) -> SizedReference:
    generator = np.random.default_rng(3)
    pixel_values = images * generator.standard_normal((1, 3, *size)).astype(np.float32)
    return SizedReference(
        pixel_values, {"cls": outputs * generator.standard_normal((1, 8)).astype(np.float32)}
    )


def test_what_was_recorded_at_other_sizes_must_be_what_is_run_there() -> None:
    assert list(differing([one()], [one()])) == []
    assert list(differing([one()], [])) == [
        "it was recorded at other sizes than those at which a graph for any size is judged"
    ]
    assert list(differing([one()], [one((4, 7))])) == list(differing([one()], []))
    assert list(differing([one(images=2.0)], [one()])) == [
        "the images of 4x6 are not cut out of the recorded ones"
    ]
    (wrong,) = differing([one(outputs=1.1)], [one()])
    assert wrong.startswith("cls at 4x6: ")
