"""`vconv card --page`: the folder that is published, from an artifact and its reports."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from huggingface_hub import ModelCard
from made_validations import NEWER, change, moved, put, saved, validate

import vconv
from vconv.artifact import manifest
from vconv.artifact.results import CARD_FILE
from vconv.catalog.systems import SYSTEMS, System
from vconv.cli import main
from vconv.errors import ArtifactError, InputError, UnknownNameError, VconvError
from vconv.validators.report.publishing.platforms import PLATFORMS
from vconv.validators.report.publishing.repository import ACCURACY_RESULTS, MARK_FILE

OLD = Path(__file__).parents[2] / "data" / "artifact-0.1.0"
LANGUAGES = ("en", "zh")
WRITTEN = ["README.md", "inference.py", "eval/eval_accuracy.py", "eval/eval_performance.py"]
EXTRA = {"gitcode": [".gitattributes"], "modelscope": ["configuration.json"], "huggingface": []}


@pytest.fixture
def system() -> System:
    """The one system of these tests: what they are about does not depend on it."""
    return SYSTEMS["dinov3-vits16"]


@pytest.fixture
def validated(copied: Path) -> Path:
    """A copy of the artifact with the report of a validation, to be changed."""
    validate(copied)
    return copied


def contents(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def published(artifact: Path, out: Path, page: str = "gitcode", **options: Any) -> dict[str, bytes]:
    before = contents(artifact)
    vconv.card(artifact, page=page, out=out, **options)
    assert contents(artifact) == before, "the artifact was changed"
    return contents(out)


@pytest.mark.parametrize("page", PLATFORMS)
def test_the_folder_has_what_the_platform_shows_and_what_the_artifact_holds(
    validated: Path, tmp_path: Path, page: str
) -> None:
    file, _ = saved(validated)
    stem = Path(file).stem
    found = published(validated, tmp_path / "out", page)
    own = {
        name: content
        for name, content in contents(validated).items()
        if not name.startswith(("reports/", "results.json", CARD_FILE))
    }
    reports = [file, f"reports/{stem}.html", "results.json"]
    written = {*WRITTEN, *EXTRA[page], ACCURACY_RESULTS, f"logs/{stem}.log", *reports, MARK_FILE}
    assert found.keys() == {*own, *written}
    assert {name: found[name] for name in own} == own
    assert found[f"logs/{stem}.log"] == (validated / file).with_suffix(".log").read_bytes()
    assert found[file] == (validated / file).read_bytes()
    text = found[CARD_FILE].decode()
    for name in written - {CARD_FILE}:
        assert f"| `{name}` | " in text, name
        assert f"| `{name}` |  |" not in text, name
    # The folder is an artifact itself, in which a validation keeps the page.
    assert json.loads(found["results.json"])["card"] == {}
    assert vconv.info(tmp_path / "out")["reports"]


def test_without_the_artifacts_files_the_folder_lies_over_the_artifact(
    validated: Path, tmp_path: Path
) -> None:
    file, _ = saved(validated)
    found = published(validated, tmp_path / "out", with_files="none")
    log = f"logs/{Path(file).stem}.log"
    assert found.keys() == {*WRITTEN, *EXTRA["gitcode"], ACCURACY_RESULTS, log, MARK_FILE}
    assert found.keys() & contents(validated).keys() == {CARD_FILE}


def body(text: str) -> list[str]:
    """Return the lines of a card after its front matter."""
    return text.split("\n---\n", 1)[1].splitlines()


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("page", PLATFORMS)
def test_the_page_is_the_card_and_what_lies_beside_it(
    validated: Path, tmp_path: Path, page: str, lang: str
) -> None:
    vconv.card(validated, lang)
    card = body((validated / CARD_FILE).read_text())
    text = published(validated, tmp_path / "out", page)[CARD_FILE].decode()
    lines = body(text)
    gone = [line for line in card if line not in lines]
    assert [line[:5] for line in gone] == ["# A n" if lang == "en" else "# `di", "## 11"], gone
    added = [line for line in lines if line not in card]
    # The number of recorded images is the manifest's; others name sections, options and reports.
    numbers = {number for line in added for number in re.findall(r"(?<![\w.-])\d+(?:\.\d+)?(?![\w-])", line)}
    assert numbers <= {"1", "2", "4", "8", "10", "11", "12", "100"}, numbers
    assert ("未在 NPU 上实测" if lang == "zh" else "Nothing was measured on an NPU") in text


NPU = "Ascend910B4"
NPU_CASES = [
    ({}, None, "Nothing was measured on an NPU", "no report of a real NPU"),
    ({"device": "npu-sim", "simulated": True}, None, "Nothing was measured on an NPU", "no report of a real"),
    ({"device": "npu:0"}, "NPU", f"Measured on a real NPU: `npu:0`, {NPU}", ""),
    (
        {"device": "npu:0", "status": "failed"},
        None,
        "Not every validation on an NPU passed",
        "did not pass: reports/29991231T000000-validate.json (npu:0: failed)",
    ),
]


@pytest.mark.parametrize(("row", "hardware", "sentence", "reason"), NPU_CASES)
def test_an_npu_is_claimed_only_with_a_report_of_a_real_one(
    validated: Path, tmp_path: Path, row: dict[str, Any], hardware: str | None, sentence: str, reason: str
) -> None:
    _, content = saved(validated)
    if row:
        put(validated, NEWER, moved(content, model=NPU, **row))
    said: list[str] = []
    text = published(validated, tmp_path / "out", say=said.append)[CARD_FILE].decode()
    data = ModelCard(text).data.to_dict()
    assert data.get("hardware") == hardware
    assert ({"NPU", "Ascend", "ascend-npu"} <= set(data["tags"])) is bool(hardware)
    assert ("\n#+NPU\n" in text) is bool(hardware)
    assert sentence in text
    assert [reason in line for line in said if "hardware: NPU" in line] == [True] * bool(reason)
    title = next(line for line in text.splitlines() if line.startswith("# "))
    assert title.endswith(" on Ascend NPU") is ("Nothing was measured" not in text)


def resolved(content: Any, path: str) -> Any:
    for key in path.split("/")[1:]:
        content = content[int(key) if isinstance(content, list) else key]
    return content


def test_every_figure_of_the_results_is_at_its_place_in_its_report(validated: Path, tmp_path: Path) -> None:
    _, content = saved(validated)
    put(validated, NEWER, moved(content, "npu-sim", "simulated", simulated=True, latency=[]))
    found = published(validated, tmp_path / "out")
    figures = json.loads(found[ACCURACY_RESULTS])["recorded"]
    assert len(figures) > 60
    for figure in figures:
        report = json.loads(found[figure["report"]])
        assert figure["value"] == resolved(report, figure["path"])
        if figure["limit"] is not None:
            assert figure["limit"] == resolved(report, figure["limit_path"])
        variant = report["variants"][int(figure["path"].split("/")[2])]
        assert (figure["variant"], figure["device"]) == (variant["variant"], variant["device"])
        assert figure["synthetic"] is True
        assert figure["simulated"] is (figure["device"] == "npu-sim")
    assert {figure["device"] for figure in figures} == {"cpu", "npu-sim"}


def test_a_report_of_0_1_0_gives_figures_with_their_places_in_it(tmp_path: Path) -> None:
    found = published(OLD, tmp_path / "out")
    figures = json.loads(found[ACCURACY_RESULTS])["recorded"]
    assert figures
    for figure in figures:
        assert figure["value"] == resolved(json.loads(found[figure["report"]]), figure["path"])
        assert (figure["limit"], figure["limit_path"]) == (None, None)  # they are elsewhere in such a report


def differences(before: bytes, after: bytes) -> list[tuple[str, str]]:
    lines = zip(before.decode().splitlines(), after.decode().splitlines(), strict=True)
    return [(old, new) for old, new in lines if old != new]


NUMBERS = [
    (("variants", 1, "outputs", "cls", "vector_relative_error"), 7.65e-6, "7.65e-06", 1),
    (("variants", 2, "outputs", "patches", "cosine"), 0.987654, "0.987654", 1),
    (("variants", 1, "outputs", "cls", "mse"), 9.87e-5, "9.87e-05", 1),
    (("variants", 1, "output_summary", "cls", "max"), 345.6789, "345.6789", 0),
    (("variants", 1, "latency", 0, "min_ms"), 0.987, "0.99", 0),
    (("preprocessing_ms_per_image",), 7654.32, "7654.32", 0),
]


@pytest.mark.parametrize(
    ("keys", "value", "written", "figures"), NUMBERS, ids=[str(row[0][-1]) for row in NUMBERS]
)
def test_a_number_that_changes_in_a_report_changes_on_the_page_and_nothing_else_does(
    validated: Path, tmp_path: Path, keys: tuple[Any, ...], value: float, written: str, figures: int
) -> None:
    file, content = saved(validated)
    put(validated, file, content)
    before = published(validated, tmp_path / "before")
    change(content, keys, value)
    put(validated, file, content)
    after = published(validated, tmp_path / "after")
    (page,) = differences(before[CARD_FILE], after[CARD_FILE])
    cells = [re.split(r"\||, | ms", line) for line in page]
    (cell,) = [new for old, new in zip(*cells, strict=True) if old != new]
    assert written in cell
    results = differences(before[ACCURACY_RESULTS], after[ACCURACY_RESULTS])
    assert [new.strip() for _, new in results] == [f'"value": {value!r},'] * figures
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {CARD_FILE, file, "results.json", MARK_FILE, *[ACCURACY_RESULTS] * figures}


def test_a_report_that_was_changed_is_left_out_of_the_folder(validated: Path, tmp_path: Path) -> None:
    file, content = saved(validated)
    (validated / file).write_text(json.dumps({**content, "status": "passed indeed"}))
    said: list[str] = []
    found = published(validated, tmp_path / "out", say=said.append)
    assert f"{file} is left out: was changed" in said
    assert not [name for name in found if name.startswith(("reports/", "logs/"))]
    assert json.loads(found[ACCURACY_RESULTS])["recorded"] == []
    assert "Not validated yet" in found[CARD_FILE].decode()


Spoil = Callable[[Path, Path], object]


def with_stranger(artifact: Path, out: Path) -> None:
    vconv.card(artifact, page="gitcode", out=out)
    (out / ".git").mkdir()
    (out / ".git" / "config").write_text("mine")


def without_graph(artifact: Path, out: Path) -> None:
    (artifact / "model.onnx").unlink()


def damaged_weights(artifact: Path, out: Path) -> None:
    with (artifact / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")


def with_mark(artifact: Path, out: Path, text: str = "{}") -> None:
    out.mkdir()
    (out / MARK_FILE).write_text(text)


REFUSED: dict[str, tuple[Spoil, dict[str, Any], type[VconvError], tuple[str, ...]]] = {
    "a folder with a file": (
        lambda artifact, out: (out.mkdir(), (out / "mine").write_text("x")),
        {},
        ArtifactError,
        ("is in the way", "got a folder that is not empty", "choose another --out"),
    ),
    "a file": (lambda artifact, out: out.write_text("x"), {}, ArtifactError, ("got a file",)),
    "a page, without --force": (
        lambda artifact, out: vconv.card(artifact, page="gitcode", out=out),
        {},
        ArtifactError,
        ("got a page that vconv wrote", "replace it with --force"),
    ),
    "an artifact, with --force": (
        lambda artifact, out: shutil.copytree(artifact, out),
        {"force": True},
        ArtifactError,
        ("got a folder that is not empty",),
    ),
    "a page with files of somebody else": (
        with_stranger,
        {"force": True},
        ArtifactError,
        ("files that vconv did not write", "got .git/config", "move them away"),
    ),
    "a page whose list is damaged": (with_mark, {"force": True}, ArtifactError, ("no list of files",)),
    "an artifact without a graph": (without_graph, {}, ArtifactError, ("model.onnx", "got no such file")),
    "an artifact with damaged weights": (
        damaged_weights,
        {},
        ArtifactError,
        ("cannot publish", "model.safetensors", "the file that vconv.json lists"),
    ),
    "an unknown platform": (
        lambda *_: None,
        {"page": "gitlab"},
        UnknownNameError,
        ("unknown page", "gitcode"),
    ),
    "no folder": (lambda *_: None, {"out": None}, InputError, ("belong together", "got only --page")),
    "no platform": (lambda *_: None, {"page": None}, InputError, ("belong together", "got only --out")),
    "a way without a page": (
        lambda *_: None,
        {"page": None, "out": None, "with_files": "none"},
        InputError,
        ("--with-files none is only for a page", "got neither --page nor --out"),
    ),
    "an unknown way": (
        lambda *_: None,
        {"with_files": "link"},
        UnknownNameError,
        ("--with-files", "copy, none"),
    ),
}


@pytest.mark.parametrize(("spoil", "options", "error", "fragments"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_published_is_refused_in_one_line(
    validated: Path,
    tmp_path: Path,
    refused: Any,
    spoil: Spoil,
    options: dict[str, Any],
    error: type[VconvError],
    fragments: tuple[str, ...],
) -> None:
    out = tmp_path / "out"
    spoil(validated, out)
    before = contents(tmp_path)
    with refused(error, *fragments):
        vconv.card(validated, **{"page": "gitcode", "out": out, **options})
    assert contents(tmp_path) == before


def test_a_folder_inside_the_artifact_is_refused(validated: Path, refused: Any) -> None:
    with refused(ArtifactError, "outside of the artifact"):
        vconv.card(validated, page="gitcode", out=validated / "page")


def test_force_replaces_a_page_with_what_its_scripts_wrote(validated: Path, tmp_path: Path) -> None:
    first = published(validated, tmp_path / "out")
    (tmp_path / "out" / "results" / "performance_eval.json").write_text("{}")
    (tmp_path / "out" / "logs" / "accuracy_eval.log").write_text("")
    (tmp_path / "out" / "__pycache__").mkdir()
    (tmp_path / "out" / "__pycache__" / "inference.pyc").write_text("")
    (tmp_path / "out" / CARD_FILE).write_text("mine")
    assert published(validated, tmp_path / "out", force=True) == first


def test_weights_that_the_export_left_out_are_named_and_not_copied(validated: Path, tmp_path: Path) -> None:
    manifest.load(validated).model_copy(update={"without_weights": True}).save(validated)
    (validated / "model.safetensors").unlink()
    said: list[str] = []
    found = published(validated, tmp_path / "out", say=said.append)
    assert "model.safetensors" not in found
    assert any("exported without weights" in line for line in said)
    assert "`vconv fill . --weights WHERE`" in found[CARD_FILE].decode()


KEYS = {"artifact", "folder", "page", "language", "files", "reports", "left_out", "npu", "publish"}


def test_the_command_prints_how_to_publish_and_why_no_npu_is_claimed(validated: Path, tmp_path: Path) -> None:
    arguments = ["card", str(validated), "--page", "gitcode", "--out"]
    found = CliRunner().invoke(main, [*arguments, str(tmp_path / "out")])
    assert found.exit_code == 0
    assert "hardware: NPU" in found.stderr and "no report of a real NPU" in found.stderr
    assert "hardware: NPU" not in found.stdout
    assert "push" in found.stdout and "https://gitcode.com/OWNER/NAME.git" in found.stdout
    plain = CliRunner().invoke(main, [*arguments, str(tmp_path / "other"), "--json"])
    assert json.loads(plain.stdout).keys() >= KEYS


def test_the_command_takes_every_platform() -> None:
    (page,) = (one for one in main.commands["card"].params if one.name == "page")
    assert isinstance(page.type, click.Choice)
    assert list(page.type.choices) == list(PLATFORMS)
