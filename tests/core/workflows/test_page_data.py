"""What a validation looks at for its page, and the page that it writes."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vconv
from vconv.catalog.systems import System
from vconv.cli import render
from vconv.convert.sources.table import Request, open_source
from vconv.runtime.inputs.preprocessing import preprocess
from vconv.runtime.processes import peak_memory
from vconv.runtime.processes.peak_memory import Peak
from vconv.validators.bisect.depth import NO_ORIGINAL, QUICK

ONE = pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
PICTURE = re.compile(r'src="data:image/(png|jpeg);base64,([^"]+)"')


@pytest.fixture(autouse=True)
def _unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the processes in which memory is measured: they take longer than all else."""
    monkeypatch.setattr(peak_memory, "measure", lambda subject: Peak(reason="not in a test"))


def pictures(page: str) -> list[Image.Image]:
    return [Image.open(io.BytesIO(base64.b64decode(found[1]))) for found in PICTURE.findall(page)]


def test_every_systems_variants_have_maps_and_errors_against_depth_on_a_page(
    copied: Path, photographs: list[str]
) -> None:
    report = vconv.validate(copied, images=photographs, budget=1e-3)
    assert report.status == "passed"
    for row in report.variants:
        assert row.depth_reason == row.patch_maps_reason == ""
        assert [one.stage for one in row.depth] == [
            "embeddings",
            *(f"block {i}" for i in range(3)),
            "head",
        ]
        judged = row.status == "passed"
        assert all(0 <= one.error < (1e-5 if judged else 0.1) for one in row.depth)
        assert [one.image for one in row.patch_maps] == ["one.png", "two.jpg"]
        assert all(one.largest < (1e-4 if judged else 0.5) for one in row.patch_maps)
    path = Path(report.page)
    assert path == Path(report.report).with_suffix(".html")
    page = path.read_text()
    assert hashlib.sha256(Path(report.report).read_bytes()).hexdigest() in page
    ramp, photograph, reference, *maps = pictures(page)
    pixel_values = preprocess(copied, [Image.open(photographs[0])])
    assert (photograph.height, photograph.width) == pixel_values.shape[2:]
    # The lightness of what is shown follows what the network saw.
    seen = pixel_values[0].mean(axis=0).ravel()
    shown = np.asarray(photograph.convert("L"), dtype=np.float64).ravel()
    assert np.corrcoef(seen, shown)[0, 1] > 0.95
    assert reference.size == maps[0].size and ramp.size == (256, 1)


@ONE
def test_a_glance_leaves_depth_out_and_the_terminal_names_the_page(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = vconv.validate(copied, quick=True, budget=1e-3)
    assert {(row.depth, row.depth_reason) for row in report.variants} == {(None, QUICK)}
    assert QUICK in Path(report.page).read_text()
    render.validated(report)
    # A path that is longer than a line goes on in the next.
    drawn = "".join(capsys.readouterr().out.split())
    assert drawn.endswith(f"report:{report.report}page:{report.page}passed")


@ONE
def test_against_recorded_outputs_there_are_maps_but_no_depth(
    small_system: System, small_artifact: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    source = open_source(Request(small_system, "synthetic:3"), weights)
    vconv.export(small_system.name, str(source.folder), tmp_path / "a")
    shutil.rmtree(weights)
    report = vconv.validate(tmp_path / "a", budget=1e-3)
    assert report.reference.source == "golden"
    assert {row.depth_reason for row in report.variants} == {NO_ORIGINAL}
    assert all(row.patch_maps for row in report.variants)


@ONE
def test_with_nothing_to_hold_variants_against_there_is_a_page_all_the_same(
    small_system: System, small_artifact: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    source = open_source(Request(small_system, "synthetic:3"), weights)
    vconv.export(small_system.name, str(source.folder), tmp_path / "a", golden=False)
    shutil.rmtree(weights)
    report = vconv.validate(tmp_path / "a", budget=1e-3)
    assert report.status == "incomplete"
    assert "nothing was judged" in Path(report.page).read_text()
