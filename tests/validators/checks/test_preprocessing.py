from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vconv.artifact.artifact import Artifact
from vconv.artifact.manifest import Manifest
from vconv.convert.sources.base import Source
from vconv.types import PREPROCESSOR_FILE, Status
from vconv.validators.accuracy import golden
from vconv.validators.checks import preprocessing
from vconv.validators.checks.preprocessing import RecordedInputs, verify_preprocessing
from vconv.validators.faults.table import FAULTS
from vconv.validators.faults.workshop import ArtifactCopy

NOTHING: RecordedInputs = (None, ())


def test_the_processor_of_an_artifact_is_its_originals(small_artifact: Path, small_source: Source) -> None:
    assert verify_preprocessing(small_artifact, small_source.folder, NOTHING).status is Status.PASSED


def recorded(folder: Path, made: Manifest) -> RecordedInputs:
    assert made.golden
    return golden.load(folder / made.golden.path)[0], made.golden.images


def test_without_the_original_what_was_recorded_of_made_up_images_is_made_again(
    copied: Path, made: Manifest
) -> None:
    check = verify_preprocessing(copied, None, recorded(copied, made))
    assert check.status is Status.PASSED
    shop = ArtifactCopy.open(Artifact.open(copied), copied.parent / "shop")
    fault = next(fault for fault in FAULTS if fault.name == "another mean and deviation")
    fault.inject(shop)
    check = verify_preprocessing(shop.folder, None, recorded(copied, made))
    assert (check.status, check.fault) == (Status.FAILED, "normalisation")


@pytest.mark.parametrize("names", [(), ("photograph 1", "synthetic:1"), ("photograph 1", "photograph 2")])
def test_without_the_original_and_made_up_images_nothing_is_said(
    names: tuple[str, ...], small_artifact: Path, made: Manifest
) -> None:
    pixel_values, _ = recorded(small_artifact, made)
    check = verify_preprocessing(small_artifact, None, (pixel_values, names))
    assert (check.status, check.detail) == (
        Status.SKIPPED,
        "neither the original's image processor nor a recorded made-up image is at hand",
    )


@pytest.mark.parametrize("system", ["dinov2-large"], indirect=True)
def test_images_of_another_size_fail(copied: Path, small_source: Source) -> None:
    path = copied / PREPROCESSOR_FILE
    square = {"height": 70, "width": 70}
    path.write_text(json.dumps({**json.loads(path.read_text()), "crop_size": square}))
    check = verify_preprocessing(copied, small_source.folder, NOTHING)
    assert (check.status, check.fault) == (Status.FAILED, "image size")
    assert check.detail == "images have the shape [3, 70, 70], not [3, 56, 56]"


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
    assert preprocessing._fault(actual, expected) == fault
