"""What reduced precision loses, against numbers that are worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vconv.types import Array
from vconv.validators.accuracy.losses import LOGITS, POOLED, Losses, losses


def turned(vector: Array, degrees: float) -> Array:
    """Turn vectors of a plane (..., 2)."""
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return (vector @ turn).astype(np.float32)


RIGHT = np.array([[1, 0], [0, 2], [3, 3]], np.float32)


def test_equal_results_lose_nothing() -> None:
    same = {"cls": RIGHT, POOLED: np.arange(1.0, 11).reshape(5, 2), LOGITS: RIGHT}
    assert losses(same, same) == Losses(cosine=0.0, neighbours=0.0, top1=0.0)
    assert losses(same, same).worst == 0.0


def test_a_turned_token_loses_the_cosine_of_its_angle() -> None:
    tokens = np.stack([RIGHT, 5 * RIGHT])
    actual = tokens.copy()
    actual[1, 2] = turned(tokens[1, 2], 60)
    actual[0, 1] = turned(tokens[0, 1], 10)
    found = losses({"patches": actual}, {"patches": tokens})
    assert found == Losses(pytest.approx(1 - math.cos(math.radians(60)), abs=1e-6), None, None)


def test_an_output_without_tokens_loses_the_cosine_of_each_image() -> None:
    found = losses({"cls": turned(RIGHT, 90)}, {"cls": RIGHT})
    assert found.cosine == pytest.approx(1, abs=1e-6)


def test_of_images_of_other_sizes_the_cosine_counts_and_the_classes_do_not() -> None:
    same = {"cls": RIGHT, LOGITS: RIGHT}
    other = {"cls": turned(RIGHT[:1], 40), LOGITS: RIGHT[:1, ::-1]}
    found = losses(same, same, [(other, {"cls": RIGHT[:1], LOGITS: RIGHT[:1]})])
    assert found == Losses(pytest.approx(1.0), None, 0.0), "the logits are turned by a right angle"
    alone = losses(same, same, [({"cls": other["cls"]}, {"cls": RIGHT[:1]})])
    assert alone.cosine == pytest.approx(1 - math.cos(math.radians(40)), abs=1e-6)


def test_a_value_that_is_not_finite_at_another_size_is_the_worst_loss() -> None:
    found = losses({"cls": RIGHT}, {"cls": RIGHT}, [({"cls": np.nan * RIGHT}, {"cls": RIGHT})])
    assert math.isnan(found.cosine) and found.worst == math.inf


def test_length_alone_loses_nothing() -> None:
    assert losses({"cls": 7 * RIGHT}, {"cls": RIGHT}).cosine == pytest.approx(0, abs=1e-12)


def test_the_output_that_loses_most_counts() -> None:
    expected = {"cls": RIGHT, "patches": RIGHT[None]}
    actual = {"cls": turned(RIGHT, 30), "patches": RIGHT[None]}
    assert losses(actual, expected).cosine == pytest.approx(1 - math.cos(math.radians(30)), abs=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", ["first", "second"])
def test_a_value_that_is_not_finite_is_the_worst_loss_in_any_output(value: float, place: str) -> None:
    expected = {"first": RIGHT, "second": RIGHT}
    actual = {"first": turned(RIGHT, 5), "second": turned(RIGHT, 5)}
    actual[place][0, 0] = value
    found = losses(actual, expected)
    assert math.isnan(found.cosine)
    assert found.worst == math.inf


def circle(*degrees: float) -> Array:
    """Return points of a circle (N, 2)."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_a_changed_neighbour_counts_once_among_all() -> None:
    """Of five images on a circle, two neighbours each count; the last image moves to the other side."""
    expected, actual = circle(0, 10, 21, 33, 46), circle(0, 10, 21, 33, 350)
    neighbours = [({1, 2}, {1, 4}), ({0, 2}, {0, 2}), ({1, 3}, {1, 3}), ({2, 4}, {1, 2}), ({3, 2}, {0, 1})]
    kept = sum(len(before & after) for before, after in neighbours)
    found = losses({POOLED: actual}, {POOLED: expected})
    assert found.neighbours == pytest.approx(1 - kept / 10)
    assert found.worst == pytest.approx(max(found.cosine, 1 - kept / 10))


def test_two_images_have_no_neighbours_to_lose() -> None:
    found = losses({POOLED: RIGHT[:2]}, {POOLED: RIGHT[:2]})
    assert (found.neighbours, found.top1, found.worst) == (None, None, found.cosine)


def test_the_share_of_changed_classes_is_lost() -> None:
    expected = np.eye(4, dtype=np.float32)
    actual = expected.copy()
    actual[2, 0] = 1.5
    found = losses({LOGITS: actual}, {LOGITS: expected})
    assert found.top1 == 0.25
    assert found.worst == max(found.cosine, 0.25)
