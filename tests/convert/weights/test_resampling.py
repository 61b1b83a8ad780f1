"""Our matrices held against a restatement of the authors' formula, whole tensors at many sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from published_formulas import resampled_positions

from vconv.convert.weights.resampling import matrix, resampled

GRIDS = [(16, 16), (4, 4), (6, 3), (1, 1), (37, 36), (38, 2), (74, 50)]
"""Grids to resample the published 37x37 to: smaller, greater, and not square."""


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("side", [37, 5, 1])
def test_matrices_resample_as_the_authors_formula_says(grid: tuple[int, int], side: int) -> None:
    stored = torch.randn(1, 1 + side * side, 8, generator=torch.Generator().manual_seed(0))
    expected = resampled_positions(stored, *grid) if grid != (side, side) else stored
    found = resampled(stored.numpy(), grid, 0.1)
    assert (found.dtype, found.shape) == (np.float32, (1, 1 + grid[0] * grid[1], 8))
    if grid != (side, side):
        np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-6)


def test_every_new_place_is_a_mean_of_old_ones() -> None:
    assert np.abs(matrix(16, 37, 0.1).sum(axis=1) - 1).max() < 1e-12


def test_without_an_offset_the_same_number_of_places_changes_nothing() -> None:
    assert np.array_equal(matrix(5, 5, 0.0), np.eye(5))
    assert np.abs(matrix(5, 5, 0.1) - np.eye(5)).max() > 0.01
