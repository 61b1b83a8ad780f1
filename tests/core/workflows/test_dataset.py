"""A validation on a folder of images: what it finds, what it fails, and how it survives a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from examples import EXAMPLES

import vconv
from vconv.artifact.results import REPORTS_FOLDER
from vconv.catalog.systems import SYSTEMS, System
from vconv.cli import main
from vconv.cli.render import validated
from vconv.convert.architectures.outputs import output_names
from vconv.convert.libraries import models
from vconv.convert.sources.table import Request, open_source
from vconv.errors import ArtifactError, EngineError, InputError
from vconv.runtime.engines.base import in_batches
from vconv.runtime.inputs.image_folder import find_images
from vconv.runtime.inputs.images import natural_image
from vconv.runtime.inputs.pictures import open_picture
from vconv.runtime.inputs.preprocessing import preprocess
from vconv.types import Array
from vconv.validators.accuracy.golden import AT_ONCE
from vconv.validators.report import journal
from vconv.validators.report.dataset import IMAGE, StepNote
from vconv.validators.report.dataset_document import SkippedImage
from vconv.validators.report.document import ValidationResult
from vconv.validators.report.journal import JournalTable, open_journal
from vconv.validators.report.upgrade import read_report
from vconv.workflows import dataset as dataset_room
from vconv.workflows import validate as judging

NAME = "vit-base-patch16-224-in21k"
IMAGES = 21
BROKEN, WRONG = "k/broken.png", "k/012.png"


@pytest.fixture
def system(request: pytest.FixtureRequest) -> System:
    """One system is enough, where a test does not name others."""
    return SYSTEMS[getattr(request, "param", NAME)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images in two sub-folders, among them a broken one and a file that is none."""
    place = tmp_path / "imäges"
    for seed in range(IMAGES):
        path = place / ("k" if seed % 3 == 0 else "l") / f"{seed:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        natural_image(seed).resize((70 + seed, 66)).save(path)
    (place / BROKEN).write_bytes((place / WRONG).read_bytes()[:300])
    (place / "labels.txt").write_text("")
    return place


@pytest.fixture
def validate(copied: Path) -> Callable[..., ValidationResult]:
    """Validate the copy, not timing more than must be."""

    def run(folder: Path | None, **options: Any) -> ValidationResult:
        return vconv.validate(copied, dataset=folder, quick=True, **options)

    return run


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))


def figures(report: ValidationResult) -> dict[str, Any]:
    """Return what is the same however often a run was killed."""
    return {
        key: value for key, value in report.dataset.as_json().items() if key not in ("resumed", "seconds")
    }


def left(artifact: Path) -> list[str]:
    return [path.name for path in (artifact / REPORTS_FOLDER).glob(".*")]


def brute_force(system: System, folder: Path, artifact: Path, names: Sequence[str]) -> dict[str, Array]:
    """Run the original, as its library builds it, on all images at once."""
    weights = folder.parent / "weights"
    weights.mkdir()
    source = open_source(Request(system, "synthetic:1"), weights)
    pixels = preprocess(artifact, [open_picture(folder / name) for name in names])
    with torch.inference_mode():
        found = models.Outputs(models.load(source.folder, source.network), source.network)(
            torch.from_numpy(pixels)
        )
    return {
        name: value.double().numpy() for name, value in zip(output_names(source.network), found, strict=True)
    }


def test_the_figures_are_those_of_the_original_and_the_variant_on_all_images_at_once(
    copied: Path, folder: Path, small_system: System, validate: Callable[..., ValidationResult]
) -> None:
    report = validate(folder)
    found = report.dataset
    names = [name for name in files(folder) if name != BROKEN]
    expected = brute_force(small_system, folder, copied, names)
    session = vconv.load(copied, variant="onnx-fp32")
    actual = session([open_picture(folder / name) for name in names])
    row = next(row for row in found.variants if row.variant == "onnx-fp32")
    assert list(row.outputs) == list(expected)
    for name, wanted in expected.items():
        a, e = actual[name].reshape(len(names), -1), wanted.reshape(len(names), -1)
        errors = np.sqrt(((a - e) ** 2).sum(1) / (e**2).sum(1))
        figures = row.outputs[name].vector_relative_error
        # Another batch is rounded otherwise: of the error itself, not of the values.
        np.testing.assert_allclose(list(figures.values()), np.percentile(errors, (50, 90, 99, 100)), rtol=0.5)
        assert row.outputs[name].beyond == 0
    assert (report.status, found.images, found.k, found.other_files) == ("passed", IMAGES, 10, 1)
    assert found.agreement_by_chance == 10 / (IMAGES - 1)
    assert found.skipped == (SkippedImage(image=BROKEN, reason=found.skipped[0].reason),)
    assert [row.status for row in found.variants] == ["skipped", "passed", "passed", "passed", "passed"]
    assert {row.neighbours.agreement for row in found.variants} == {1.0}
    assert [pair.agreement for pair in found.neighbours_between] == [1.0] * 10
    assert {row.top1_agreement for row in found.variants} == {None}
    assert [len(found.worst), found.resumed] == [10, False]
    assert left(copied) == []


@pytest.mark.parametrize("system", sorted(EXAMPLES), indirect=True)
def test_every_system_passes_against_its_own_reference_and_is_told_from_its_stock_original(
    folder: Path, system: System, validate: Callable[..., ValidationResult]
) -> None:
    report = validate(folder)
    found = report.dataset
    assert (report.status, found.images) == ("passed", IMAGES)
    stock, *judged = found.variants
    assert [row.status for row in judged] == ["passed"] * 4
    assert found.neighbours_of == next(name for name in ("pooled", "cls") if name in stock.outputs)
    corrected = report.reference.name != "original"
    for output in stock.outputs.values():
        assert output.beyond is output.limit is None
        assert (output.vector_relative_error["p50"] > 1e-5) == corrected


def faulty(image: Array) -> Callable[..., Any]:
    """Make graphs wrong on one image, by little, and run everything else as it is."""

    def run(session: Any, pixel_values: Array, batch: int) -> dict[str, Array]:
        outputs = in_batches(session, pixel_values, batch)
        for place, one in enumerate(pixel_values):
            if session.__self__.engine == "onnxruntime" and np.array_equal(one, image):
                outputs["patches"] = outputs["patches"].copy()
                outputs["patches"][place] *= 1.0001
        return outputs

    return run


def test_a_variant_that_is_wrong_on_one_image_fails_and_that_image_is_the_worst(
    copied: Path,
    folder: Path,
    validate: Callable[..., ValidationResult],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = preprocess(copied, [open_picture(folder / WRONG)])[0]
    monkeypatch.setattr(dataset_room, "in_batches", faulty(image))
    report = validate(folder)
    found = report.dataset
    assert (report.status, report.passed) == ("failed", False)
    statuses = ["skipped", "passed", "passed", "failed", "failed"]
    assert [row.status for row in found.variants] == statuses
    assert [row.status for row in report.variants] == statuses
    for row in (found.variants[3], report.variants[3]):
        assert row.reason.startswith(
            f"1 of {IMAGES} images of the data set are beyond the limit, the first {WRONG}: patches: vector"
        )
    beyond = {name: row.beyond for name, row in found.variants[3].outputs.items()}
    assert beyond == {"pooled": 0, "cls": 0, "patches": 1, "last_hidden_state": 0}
    worst = found.worst[0]
    assert (worst.image, worst.output) == (WRONG, "patches")
    assert worst.variant in ("onnx-fp32", "onnx-fp32-npu")
    assert worst.vector_relative_error == pytest.approx(1e-4, rel=1e-2)
    assert worst.share_of_limit > 1 > found.worst[1].share_of_limit
    assert worst.thumbnail.startswith("data:image/jpeg;base64,")
    assert all("-torch-fp32" in row.variant for row in report.ranking.rows if row.rank)


def test_images_that_an_engine_refuses_fail_its_variant_and_no_other(
    folder: Path, validate: Callable[..., ValidationResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(session: Any, pixel_values: Array, batch: int) -> dict[str, Array]:
        if session.__self__.engine == "onnxruntime" and len(pixel_values) < AT_ONCE:
            raise EngineError("it cannot", got="a few images", expected="more", fix="none")
        return in_batches(session, pixel_values, batch)

    monkeypatch.setattr(dataset_room, "in_batches", refusing)
    found = validate(folder).dataset
    assert [row.status for row in found.variants] == ["skipped", "passed", "passed", "failed", "failed"]
    refused = IMAGES - 2 * AT_ONCE + 1  # the broken image is in one of the first two steps
    for row in found.variants[3:]:
        assert row.reason.startswith(f"{refused + 7} of {IMAGES} images")
        assert "it cannot | got a few images" in row.reason
        for output in row.outputs.values():
            assert (output.compared, output.beyond) == (IMAGES - refused - 7, refused + 7)
    assert found.worst[0].share_of_limit is None


def test_wider_limits_hold_for_every_image(
    copied: Path,
    folder: Path,
    validate: Callable[..., ValidationResult],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = preprocess(copied, [open_picture(folder / WRONG)])[0]
    monkeypatch.setattr(dataset_room, "in_batches", faulty(image))
    report = validate(folder, within="card")
    assert report.status == "passed"
    assert report.dataset.worst[0].image == WRONG
    assert report.dataset.variants[3].outputs["patches"].limit == 1e-2


KILLED = """
import os, signal, sys
import vconv
from vconv.validators.report.journal import Journal

append, left = Journal.append, {steps}

def kill(self, rows, note):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    append(self, rows, note)

Journal.append = kill
vconv.validate({artifact!r}, dataset={folder!r}, quick=True)
"""


def killed(artifact: Path, folder: Path, steps: int) -> None:
    """Run a validation that is killed, once it has done some steps, in the middle of the next."""
    script = KILLED.format(steps=steps, artifact=str(artifact), folder=str(folder))
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -signal.SIGKILL


def test_a_run_that_was_killed_goes_on_and_gives_the_same_bit_by_bit(
    copied: Path, folder: Path, validate: Callable[..., ValidationResult]
) -> None:
    whole = validate(folder)
    killed(copied, folder, steps=1)
    (work,) = left(copied)
    assert work.startswith(".dataset-")
    lines: list[str] = []
    resumed = validate(folder, say=lines.append)
    assert f"resuming at image 8 of {IMAGES + 1}" in lines
    assert (whole.dataset.resumed, resumed.dataset.resumed) == (False, True)
    assert figures(resumed) == figures(whole)
    assert left(copied) == []


def interrupted(monkeypatch: pytest.MonkeyPatch, run: Callable[[], Any], steps: int) -> None:
    """Run a validation that is interrupted once it has done some steps."""
    append, done = dataset_room.Journal.append, 0

    def stop(self: Any, rows: Any, note: Any) -> None:
        nonlocal done
        if done == steps:
            raise KeyboardInterrupt
        done += 1
        append(self, rows, note)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(dataset_room.Journal, "append", stop)
        run()


def test_an_image_that_was_changed_since_is_run_again_and_all_after_it(
    copied: Path,
    folder: Path,
    validate: Callable[..., ValidationResult],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    interrupted(monkeypatch, lambda: validate(folder), steps=2)
    changed = folder / files(folder)[9]
    before = changed.stat()
    natural_image(500).resize((70, 66)).save(changed)
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    lines: list[str] = []
    resumed = validate(folder, say=lines.append)
    assert f"resuming at image 8 of {IMAGES + 1}" in lines
    assert figures(resumed) == figures(validate(folder))


@pytest.mark.parametrize("change", ["an image more", "another limit", "a variant more"])
def test_what_was_done_of_something_else_is_not_gone_on_with(
    change: str,
    copied: Path,
    folder: Path,
    validate: Callable[..., ValidationResult],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    interrupted(monkeypatch, lambda: validate(folder), steps=2)
    (work,) = left(copied)
    options: dict[str, Any] = {}
    if change == "an image more":
        natural_image(50).resize((70, 66)).save(folder / "a.png")
    elif change == "another limit":
        options["within"] = "card"
    else:
        options["precision"] = ("fp32", "bf16")
    lines: list[str] = []
    assert validate(folder, **options, say=lines.append).dataset.resumed is False
    assert left(copied) == [work]
    assert [line for line in lines if work in line and "unfinished run" in line]


STEPS: dict[str, tuple[list[int], dict[str, Any], int]] = {
    "as it was": ([0, 1], {}, 1),
    "rows of an image that is not there": ([0, 99], {}, 0),
    "rows of an image before the first": ([-1, 1], {}, 0),
    "a skipped image of another step": ([0, 1], {"skipped": [[9, "no image"]]}, 0),
    "a failed image of another step": ([0, 1], {"failed": {"cls": {"count": 1, "first": [9, "far"]}}}, 0),
    "other images": ([0, 1], {"content": "other"}, 0),
}
"""The images of a journal's rows, its note where it differs, and how many steps hold."""


@pytest.mark.parametrize("name", STEPS)
def test_a_step_that_names_other_images_is_done_again(name: str, tmp_path: Path) -> None:
    rows, changed, holds = STEPS[name]
    images: Any = SimpleNamespace(names=["a"] * 10, digest=str)
    note = {"content": dataset_room._content(map(str, range(8))), "skipped": [], "failed": {}, **changed}
    with open_journal(tmp_path, {IMAGE: JournalTable("<i8")}, StepNote) as journal:
        journal.append({IMAGE: np.array(rows)}, note)
        assert dataset_room._unchanged(journal, images) == holds


def test_a_second_validation_of_the_same_is_refused(
    copied: Path,
    folder: Path,
    validate: Callable[..., ValidationResult],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    append = dataset_room.Journal.append

    def meanwhile(self: Any, rows: Any, note: Any) -> None:
        with monkeypatch.context() as patch, pytest.raises(ArtifactError, match="is in use"):
            patch.setattr(dataset_room.Journal, "append", append)
            validate(folder)
        append(self, rows, note)

    monkeypatch.setattr(dataset_room, "AT_ONCE", 64)
    monkeypatch.setattr(dataset_room.Journal, "append", meanwhile)
    assert validate(folder).status == "passed"


def test_without_the_original_a_data_set_is_refused_before_anything_is_run(
    tmp_path: Path, shrink: Callable[[System], System], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vconv.catalog.systems.SYSTEMS", {NAME: shrink(SYSTEMS[NAME])})
    weights = tmp_path / "weights"
    weights.mkdir()
    open_source(Request(shrink(SYSTEMS[NAME]), "synthetic:1"), weights)
    vconv.export(NAME, str(weights), tmp_path / "artifact")
    lines: list[str] = []
    with pytest.raises(InputError, match=r"no weights of the original .* give --weights, or leave --dataset"):
        vconv.validate(tmp_path / "artifact", dataset=folder, say=lines.append)
    assert not any("torch" in line for line in lines)
    found = vconv.validate(tmp_path / "artifact", str(weights), dataset=folder, quick=True)
    assert found.dataset.images == IMAGES


def test_images_that_the_processor_refuses_are_skipped_and_two_have_no_neighbours(
    copied: Path, tmp_path: Path, validate: Callable[..., ValidationResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "few"
    folder.mkdir()
    for seed in range(3):
        natural_image(seed).resize((70, 66)).save(folder / f"{seed}.png")
    load = dataset_room.load_processor

    def refusing(place: Path) -> Callable[..., Array]:
        process, seen = load(place), []

        def one(images: Any) -> Array:
            seen.append(images)
            if len(seen) == 2:
                raise InputError("it cannot", got="too little", expected="more", fix="none")
            return process(images)

        return one

    monkeypatch.setattr(dataset_room, "load_processor", refusing)
    found = validate(folder).dataset
    assert found.skipped == (SkippedImage(image="1.png", reason="it cannot: too little"),)
    assert (found.images, found.k, found.agreement_by_chance) == (2, 0, None)
    assert {row.neighbours.agreement for row in found.variants} == {None}
    assert len(found.worst) == 2


@pytest.mark.parametrize(
    ("reason", "first"), [("unreadable", 1_000), ("," * 4_000, 49)], ids=["short names", "long names"]
)
def test_a_report_on_a_hundred_thousand_unreadable_files_is_short_and_is_read_again(
    copied: Path,
    folder: Path,
    validate: Callable[..., ValidationResult],
    monkeypatch: pytest.MonkeyPatch,
    reason: str,
    first: int,
) -> None:
    closed = {f"{number:06}": reason for number in range(100_500)}
    monkeypatch.setattr(judging, "find_images", lambda *given: replace(find_images(*given), closed=closed))
    report = validate(folder)
    found = report.dataset
    assert found.skipped_count == 100_501
    assert [row.image for row in found.skipped] == list(closed)[:first]
    content = json.loads(Path(report.report).read_text())
    assert read_report(content, "validate").dataset == found
    assert vconv.card(copied, force=True)["left_out"] == []
    del content["dataset"]["skipped_count"]
    assert read_report(content, "validate").dataset.skipped_count == first


def test_images_that_the_processor_refuses_one_and_all_have_not_passed(
    copied: Path, folder: Path, validate: Callable[..., ValidationResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(images: Any) -> Array:
        raise InputError("it cannot", got="too little", expected="more", fix="none")

    monkeypatch.setattr(dataset_room, "load_processor", lambda place: refuse)
    with pytest.raises(InputError, match=r"no image in .* could be judged \| got k/000\.png: it cannot: too"):
        validate(folder)


def test_memory_does_not_grow_with_the_number_of_images(
    tmp_path: Path, validate: Callable[..., ValidationResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    agree, peaks = judging.agree, []

    def traced(*arguments: Any) -> Any:
        tracemalloc.start()
        try:
            return agree(*arguments)
        finally:
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()

    monkeypatch.setattr(judging, "agree", traced)
    sizes = (8, 8, 40)  # what the first run imports is no matter
    for place, count in enumerate(sizes):
        folder = tmp_path / str(place)
        folder.mkdir()
        for name in range(count):
            natural_image(0).resize((66 + name, 64)).save(folder / f"{name}.png")
        assert validate(folder).dataset.images == count
    assert peaks[2] < 1.3 * peaks[1]


def test_the_command_line_shows_it_and_its_json_holds_it(
    copied: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["validate", str(copied), "--quick", "--dataset", str(folder), "--json"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    saved = json.loads(Path(document["report"]).read_text())
    assert saved["dataset"] == document["dataset"]
    assert document["dataset"]["folder"] == str(folder)
    inside = json.dumps({**document["dataset"], "folder": "", "worst": []})
    assert str(folder.parent) not in inside
    former = [row.pop("smoke") for row in document["variants"]]
    assert former == [row["output_summary"] for row in document["variants"]]
    validated(ValidationResult.model_validate(document))
    # Long names are folded, wherever they stand: what is drawn is read without its spaces.
    drawn = "".join(capsys.readouterr().out.split())
    count = f"{IMAGES}images,1skipped,filesofothersuffixes,leftout:1"
    told = f"dataset{folder}:{count};weights{document['weights']}"
    assert f"{told}(synthetic:nottrainedweights)" in drawn
    assert f"skipped:{BROKEN}:" in drawn
    log = Path(document["log"]).read_text()
    assert f"data set {folder}: {IMAGES} images, 1 skipped" in log
    assert f"skipped    {BROKEN}: " in log
    assert log.count("worst      ") == 10


def test_a_second_run_on_an_artifact_is_refused_before_anything_is_done(copied: Path, folder: Path) -> None:
    said: list[str] = []
    with (
        journal.alone(copied),
        pytest.raises(ArtifactError, match=r"in use .* fix: wait until it is done"),
    ):
        vconv.validate(copied, dataset=folder, quick=True, say=said.append)
    assert [line for line in said if "another suffix" not in line] == []
