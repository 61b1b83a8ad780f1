from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vconv.convert.sources.base import Source
from vconv.types import PREPROCESSOR_FILE, Status
from vconv.validators import inputs
from vconv.validators.inputs import verify_preprocessing


def test_the_processor_of_an_artifact_is_its_originals(small_artifact: Path, small_source: Source) -> None:
    assert verify_preprocessing(small_artifact, small_source.folder).status is Status.PASSED


def test_without_the_original_nothing_is_said(small_artifact: Path) -> None:
    check = verify_preprocessing(small_artifact, None)
    assert (check.status, check.detail) == (
        Status.SKIPPED,
        "the original's image processor is not at hand",
    )


@pytest.mark.parametrize("system", ["dinov2-large"], indirect=True)
def test_images_of_another_size_fail(copied: Path, small_source: Source) -> None:
    path = copied / PREPROCESSOR_FILE
    square = {"height": 70, "width": 70}
    path.write_text(json.dumps({**json.loads(path.read_text()), "crop_size": square}))
    check = verify_preprocessing(copied, small_source.folder)
    assert (check.status, check.fault) == (Status.FAILED, "image size")
    assert check.detail == "images come out as [3, 70, 70], the original's as [3, 56, 56]"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda x: x[:, ::-1], "channel order"),
        (lambda x: x * 1.1 - 0.3, "normalisation"),
        (lambda x: x * np.array([1.0, 0.9, 1.2])[:, None, None], "normalisation"),
        (lambda x: np.roll(x, 1, axis=3), "interpolation"),
        (lambda x: (x + np.roll(x, 1, axis=2)) / 2, "interpolation"),
    ],
)
def test_what_was_done_to_the_pixels_names_the_class(change: object, fault: str) -> None:
    expected = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    actual = change(expected).astype(np.float32)  # type: ignore[operator]
    assert inputs._fault(actual, expected) == fault
