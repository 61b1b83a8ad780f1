"""Nearest neighbours, against brute force over whole arrays."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from vconv.types import Array
from vconv.validators.accuracy import neighbours


def brute_force(features: Array, count: int) -> list[set[int]]:
    """Sort all others by cosine, to eleven digits, and by place."""
    wide = features.astype(np.float64)
    found = []
    for own, row in enumerate(wide):
        rated = []
        for place, other in enumerate(wide):
            lengths = np.sqrt(row @ row) * np.sqrt(other @ other)
            cosine = float(row @ other / lengths) if np.isfinite(lengths) and lengths > 0 else 0.0
            if place != own:
                rated.append((-round(cosine, 10), place))
        found.append({place for _, place in sorted(rated)[:count]})
    return found


def search(features: Array, count: int) -> Array:
    found = np.full((len(features), count), -1, np.int64)
    neighbours.nearest(features, found)
    return found


def normal(images: int, width: int, seed: int) -> Array:
    generator = np.random.Generator(np.random.PCG64(seed))
    return generator.standard_normal((images, width)).astype(np.float32)


CASES = {
    "a few": (normal(12, 4, 1), 5),
    "many": (normal(301, 16, 2), 10),
    "all the others": (normal(6, 3, 3), 5),
    "one": (normal(40, 3, 4), 1),
    "each image thrice": (np.tile(normal(7, 5, 5), (3, 1)), 4),
    "all the same": (np.ones((9, 3), np.float32), 3),
    "a few directions": (np.rint(normal(60, 2, 6)), 6),
}


@pytest.mark.parametrize("blocks", [(256, 4096), (3, 5), (1, 1)])
@pytest.mark.parametrize("case", CASES)
def test_the_neighbours_are_those_of_brute_force_and_of_equals_the_first(
    case: str, blocks: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if blocks[0] * 100 < len(CASES[case][0]):
        blocks = (blocks[0] * 50, blocks[1] * 50)
    monkeypatch.setattr(neighbours, "_ROWS", blocks[0])
    monkeypatch.setattr(neighbours, "_COLUMNS", blocks[1])
    features, count = CASES[case]
    found = search(features, count)
    assert [set(row) for row in found.tolist()] == brute_force(features, count)
    assert all(len(set(row)) == count for row in found.tolist())


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_what_has_no_direction_is_as_near_to_everything_as_what_is_at_right_angles(bad: float) -> None:
    features = np.array([[1, 0], [0.9, 0.1], [-1, 0], [-0.9, -0.1], [1, 1]], np.float32)
    features[4] = bad
    assert [set(row) for row in search(features, 2).tolist()] == [{1, 4}, {0, 4}, {3, 4}, {2, 4}, {0, 1}]


@pytest.mark.parametrize(
    ("images", "count"), [(1, 0), (2, 0), (3, 1), (4, 1), (21, 10), (22, 10), (5000, 10)]
)
def test_at_most_ten_neighbours_are_compared_and_half_of_the_others(images: int, count: int) -> None:
    assert neighbours.how_many(images) == count


def test_the_agreement_is_the_share_of_common_neighbours() -> None:
    first = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3]])
    second = np.array([[3, 2, 1], [0, 2, 4], [5, 6, 7]])
    assert neighbours.shared_neighbours(first, second) == float(Fraction(3 + 2 + 0, 9))
    assert neighbours.shared_neighbours(first, first) == 1.0
    assert neighbours.shared_neighbours(np.empty((2, 0), np.int64), np.empty((2, 0), np.int64)) is None


def test_the_agreement_of_many_images_is_that_of_brute_force() -> None:
    features = normal(200, 8, 7)
    other = features + 0.3 * normal(200, 8, 8)
    shares = [len(a & b) for a, b in zip(brute_force(features, 10), brute_force(other, 10), strict=True)]
    found = neighbours.shared_neighbours(search(features, 10), search(other, 10))
    assert found == sum(shares) / 2000
    assert 0.1 < found < 0.9
