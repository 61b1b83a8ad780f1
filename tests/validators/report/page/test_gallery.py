from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from made_reports import variant

from vconv.runtime.devices.table import find_device
from vconv.types import Array
from vconv.validators.outcome import Looked
from vconv.validators.report.page.gallery import NO_PATCHES, Gallery, key
from vconv.validators.report.page.maps import Basis, compare
from vconv.validators.report.rows import PatchMapRow

GRID, NAMES = (2, 3), tuple(f"photograph {place}" for place in range(1, 7))
CANDIDATE = Mock(variant="onnx-fp32", engine="onnxruntime", device=replace(find_device("cpu"), name="cpu"))
KEY = ("onnx-fp32", "onnxruntime", "cpu")


@pytest.fixture
def patches() -> Array:
    return np.random.default_rng(2).standard_normal((6, 6, 5)).astype(np.float32)


@pytest.fixture
def gallery(patches: Array) -> Gallery:
    return Gallery.of(NAMES, np.zeros((6, 8, 8, 3), np.uint8), {"patches": patches}, GRID)


def look(gallery: Gallery, outputs: dict[str, Array]) -> Looked[PatchMapRow]:
    return gallery.look(CANDIDATE, Mock(), outputs)


def test_four_images_are_shown_at_most(gallery: Gallery) -> None:
    assert gallery.names == NAMES[:4]
    assert [len(found) for found in (gallery.photographs, gallery.expected, gallery.bases)] == [4, 4, 4]
    assert [one.shape for one in gallery.reference()] == [(2, 3, 3)] * 4


def test_of_a_variant_only_maps_are_kept_and_their_figures_reported(gallery: Gallery, patches: Array) -> None:
    other = patches * np.float32(1.001)
    found = look(gallery, {"patches": other, "cls": patches[:, 0]})
    assert found.reason == ""
    kept = gallery.maps[KEY]
    for place, (one, told) in enumerate(zip(kept, found.rows or (), strict=True)):
        expected = compare(Basis.fit(patches[place]), other[place], patches[place], GRID)
        assert np.array_equal(one.colours, expected.colours) and one.colours.dtype == np.uint8
        assert np.array_equal(one.differences, expected.differences) and one.differences.dtype == np.uint8
        assert told == PatchMapRow(image=NAMES[place], largest=expected.largest)
        assert told.largest == pytest.approx(1e-3, rel=1e-2)


def test_a_row_of_a_report_is_known_by_its_variant_engine_and_device(
    gallery: Gallery, patches: Array
) -> None:
    look(gallery, {"patches": patches})
    assert key(variant("onnx-fp32", engine="onnxruntime", device="cpu")) in gallery.maps


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda patches: {}, "missing"),
        (lambda patches: {"patches": patches[:, 1:]}, "another shape"),
        (lambda patches: {"patches": patches[:3]}, "another shape"),
        (lambda patches: {"patches": np.where(patches > 1, np.nan, patches)}, "not all numbers"),
    ],
)
def test_what_cannot_be_drawn_says_why(gallery: Gallery, patches: Array, change: Any, why: str) -> None:
    found = look(gallery, change(patches))
    assert found.rows is None and why in found.reason
    assert gallery.maps == {}


def test_a_reference_without_patches_has_no_pictures(patches: Array) -> None:
    gallery = Gallery.of(NAMES, np.zeros((6, 8, 8, 3), np.uint8), {}, GRID)
    assert gallery.names == () and len(gallery.photographs) == 0 and gallery.reference() == ()
    assert look(gallery, {"patches": patches}) == Looked(None, NO_PATCHES)
