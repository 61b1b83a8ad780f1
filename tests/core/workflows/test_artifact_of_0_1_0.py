"""An artifact with reports, made by version 0.1.0, is read, judged, described, filled and opened."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import vconv
from vconv.artifact import manifest
from vconv.artifact.artifact import Artifact
from vconv.types import MANIFEST_FILE, WEIGHTS_FILE

DATA = Path(__file__).parents[2] / "data"
SOURCE = DATA / "source-0.1.0"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of the artifact."""
    return shutil.copytree(DATA / "artifact-0.1.0", tmp_path / "artifact-0.1.0")


@pytest.fixture
def written(old: Path) -> dict[str, object]:
    """Its manifest, as version 0.1.0 wrote it."""
    content: dict[str, object] = json.loads((old / MANIFEST_FILE).read_text())
    return content


def test_it_is_of_schema_1(written: dict[str, object]) -> None:
    assert (written["schema_version"], written["vconv"]) == (1, "0.1.0")


def test_its_manifest_says_in_schema_2_what_it_said_in_schema_1(
    old: Path, written: dict[str, object]
) -> None:
    made = manifest.load(old)
    assert (made.schema_version, made.original, made.vconv) == (1, None, "0.1.0")
    assert [(one.variant, one.engine, one.path, one.precision, one.batch) for one in made.variants] == [
        (row["variant"], row["engine"], row["file"], row["precision"], row["batch"])
        for row in written["variants"]  # type: ignore[attr-defined]
    ]
    assert {name: list(shape) for name, shape in made.outputs.items()} == written["outputs"]
    assert [one.weights for one in made.variants] == [WEIGHTS_FILE] * 3
    assert [one.contract.input.shape for one in made.variants] == [
        ("batch", 3, 32, 32),
        ("batch", 3, 32, 32),
        (2, 3, 32, 32),
    ]
    assert made.golden is not None and made.golden.path == written["golden"]["file"]  # type: ignore[index]


def test_it_is_described_with_its_reports(old: Path) -> None:
    document = vconv.info(old)
    assert (document["missing"], document["reports_trouble"]) == ([], "")
    assert {row["kind"] for row in document["reports"]} == {"validate", "compare", "bisect"}
    assert all(row["trouble"] == "" for row in document["reports"])


@pytest.mark.parametrize("live", [True, False], ids=["live", "recorded"])
def test_it_validates(old: Path, live: bool) -> None:
    report = vconv.validate(old, str(SOURCE) if live else None, quick=True)
    assert report.status == "passed"
    assert report.reference.source == ("live" if live else "golden")
    assert {row.variant: row.status for row in report.variants} == {
        **({"original-torch-fp32": "skipped"} if live else {}),
        **dict.fromkeys(("patched-torch-fp32", "fused-torch-fp32", "onnx-fp32", "onnx-fp32-npu"), "passed"),
    }


def test_an_altered_weight_of_it_fails(old: Path) -> None:
    entry = next(entry for entry in Artifact.open(old).entries.values() if len(entry.shape) == 2)
    with (old / WEIGHTS_FILE).open("r+b") as file:
        file.seek(entry.offset)
        file.write(np.float32(7).tobytes())
    with pytest.raises(vconv.VconvError, match=r"model\.safetensors was changed"):
        vconv.validate(old, str(SOURCE), quick=True)


def test_it_is_filled_from_its_source_bit_by_bit(old: Path) -> None:
    before = (old / WEIGHTS_FILE).read_bytes()
    (old / WEIGHTS_FILE).unlink()
    vconv.fill(old, str(SOURCE))
    assert (old / WEIGHTS_FILE).read_bytes() == before


def test_it_opens_and_gives_what_was_recorded(old: Path) -> None:
    made = manifest.load(old)
    assert made.golden
    recorded = safetensors.numpy.load_file(old / made.golden.path)
    with vconv.load(old) as session:
        found = session(recorded["pixel_values"])
    for name, value in found.items():
        assert np.linalg.norm(value - recorded[name]) < 1e-5 * np.linalg.norm(recorded[name]), name


def test_its_card_is_written_again(old: Path) -> None:
    before = (old / "README.md").read_text()
    (old / "README.md").unlink()
    vconv.card(old)
    after = (old / "README.md").read_text()
    assert after.count("\n## ") == before.count("\n## ")
    assert all(f"`{name}`" in after for name in manifest.load(old).files)


def test_bisect_finds_nothing_wrong_in_it(old: Path) -> None:
    assert vconv.bisect(old, weights=str(SOURCE)).status == "passed"
