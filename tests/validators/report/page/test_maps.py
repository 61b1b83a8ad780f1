from __future__ import annotations

import numpy as np
import pytest

from vconv.types import Array
from vconv.validators.report.page.maps import Basis, compare, shaded

GRID = (5, 6)


@pytest.fixture
def patches() -> Array:
    chance = np.random.default_rng(11)
    mixed = chance.standard_normal((30, 12)) * np.array([9, 5, 3, *[0.5] * 9])
    return np.asarray(mixed + chance.standard_normal(12), dtype=np.float32)


def scores_by_eigenvectors(patches: Array) -> Array:
    """Find principal components another way: as eigenvectors of the covariance, of either sign."""
    centred = patches.astype(np.float64) - patches.astype(np.float64).mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return np.asarray(centred @ vectors[:, ::-1][:, :3])


def shades(scores: Array) -> Array:
    low, high = np.percentile(scores, 1, axis=0), np.percentile(scores, 99, axis=0)
    return np.asarray(np.rint(255 * np.clip((scores - low) / (high - low), 0, 1)), dtype=np.uint8)


def test_colours_are_the_first_three_principal_components(patches: Array) -> None:
    found = Basis.fit(patches).colours(patches)
    expected = scores_by_eigenvectors(patches)
    assert found.shape == (30, 3) and found.dtype == np.uint8
    for channel in range(3):
        either = [shades(sign * expected)[:, channel].astype(int) for sign in (1, -1)]
        assert min(np.abs(found[:, channel] - one).max() for one in either) <= 1


def test_components_agree_with_a_singular_value_decomposition_and_point_the_same_way(patches: Array) -> None:
    basis = Basis.fit(patches)
    centred = patches.astype(np.float64) - patches.astype(np.float64).mean(axis=0)
    rows = np.linalg.svd(centred)[2][:3]
    assert np.allclose(np.abs((basis.components * rows).sum(axis=1)), 1.0)
    for component in basis.components:
        assert component[np.abs(component).argmax()] > 0


def test_a_basis_does_not_depend_on_which_sign_the_decomposition_gave(
    patches: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, genuine = Basis.fit(patches), np.linalg.svd

    def turned(matrix: Array, full_matrices: bool) -> tuple[Array, Array, Array]:
        left, strengths, rows = genuine(matrix, full_matrices=full_matrices)
        return -left, strengths, -rows

    monkeypatch.setattr(np.linalg, "svd", turned)
    assert np.array_equal(Basis.fit(patches).components, before.components)


def test_the_same_patches_give_the_same_map_and_permuted_ones_another(patches: Array) -> None:
    basis = Basis.fit(patches)
    same = compare(basis, patches, patches, GRID)
    assert np.array_equal(same.colours, basis.colours(patches).reshape(*GRID, 3))
    assert not same.differences.any() and same.largest == 0.0
    rolled = compare(basis, np.roll(patches, 1, axis=0), patches, GRID)
    assert not np.array_equal(rolled.colours, same.colours) and rolled.largest > 0.1


def test_a_map_has_rows_and_columns_in_the_order_of_patches(patches: Array) -> None:
    other = patches.copy()
    other[7] *= 1.5
    found = compare(Basis.fit(patches), other, patches, GRID)
    assert found.colours.shape == (*GRID, 3) and found.differences.shape == GRID
    # Patch 7 of rows of six is the second of the second row.
    assert np.argwhere(found.differences).tolist() == [[1, 1]]


def test_a_difference_is_the_relative_error_of_a_patch_on_a_scale_of_eight_decades(patches: Array) -> None:
    wrong = 10.0 ** np.linspace(-9, 1, 30)
    found = compare(Basis.fit(patches), patches * (1 + wrong)[:, None], patches, GRID)
    assert found.largest == pytest.approx(10.0, rel=1e-3)
    expected = np.rint(255 * (np.log10(wrong) + 8) / 8).clip(0, 255).reshape(GRID)
    # Patches are of float32: the least of these errors lie in its rounding.
    readable = (wrong > 1e-5).reshape(GRID)
    assert np.abs(found.differences - expected)[readable].max() <= 1


def test_one_error_has_one_shade_whatever_else_is_on_the_map() -> None:
    assert shaded(np.array([0.0, 1e-9, 1e-8, 1e-4, 1.0, 30.0])).tolist() == [0, 0, 0, 128, 255, 255]


@pytest.mark.parametrize("shape", [(1, 4), (2, 5), (30, 2)])
def test_too_few_patches_or_channels_leave_colours_dark(shape: tuple[int, int]) -> None:
    few = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    colours = Basis.fit(few).colours(few)
    directions = min(shape[0] - 1, shape[1])
    assert colours.shape == (shape[0], 3)
    assert not colours[:, directions:].any()


def test_patches_that_are_all_alike_have_no_colours() -> None:
    same = np.full((9, 4), 2.5, np.float32)
    assert not Basis.fit(same).colours(same).any()
