"""Every command, on every state that an artifact can be in: it works, or refuses with one sentence."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest

import vconv
from vconv.artifact import manifest, results
from vconv.artifact.results import CARD_FILE, REPORTS_FOLDER, RESULTS_FILE
from vconv.cli import render
from vconv.errors import VconvError
from vconv.hashes import sha256_of
from vconv.types import MANIFEST_FILE, WEIGHTS_FILE
from vconv.workflows import selftest

DATA = Path(__file__).parents[2] / "data"
SMALL = pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)


def without_weights(folder: Path) -> None:
    manifest.load(folder).model_copy(update={"without_weights": True}).save(folder)
    (folder / WEIGHTS_FILE).unlink()


def without_golden(folder: Path) -> None:
    made = manifest.load(folder)
    assert made.golden
    files = {name: file for name, file in made.files.items() if name != made.golden.path}
    made.model_copy(update={"golden": None, "files": files}).save(folder)
    shutil.rmtree((folder / made.golden.path).parent)


def never_validated(folder: Path) -> None:
    for name in (RESULTS_FILE, CARD_FILE):
        (folder / name).unlink()


def linked(folder: Path) -> None:
    """Move every file where a hub's cache has it: under the name of its hash, in another folder."""
    blobs = folder.parent / "blobs"
    blobs.mkdir()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        blob = blobs / sha256_of(path)
        path.rename(blob)
        path.symlink_to(os.path.relpath(blob, path.parent))


def of_schema_1(folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(DATA / "artifact-0.1.0", folder)


def as_it_is(folder: Path) -> None:
    """Leave it as it is."""


STATES: Mapping[str, Callable[[Path], None]] = {
    "without weights": without_weights,
    "without golden": without_golden,
    "never validated": never_validated,
    "read-only": as_it_is,
    "linked": linked,
    "of schema 1": of_schema_1,
}
"""By name: what brings an artifact into the state."""


def show(folder: Path, weights: str) -> None:
    render.artifact(vconv.info(folder))


def open_and_close(folder: Path, weights: str) -> None:
    for engine in ("onnxruntime", "openvino"):
        vconv.load(folder, engine=engine).close()
    vconv.load(folder, variant="patched-torch-fp32").close()


def record(folder: Path, weights: str) -> None:
    vconv.reference(folder, weights, out=folder.parent / "reference.safetensors")


COMMANDS: Mapping[str, Callable[[Path, str], object]] = {
    "info": show,
    "validate": lambda folder, weights: vconv.validate(folder, weights, quick=True, budget=0.001),
    "card": lambda folder, weights: vconv.card(folder),
    "fill": vconv.fill,
    "bisect": lambda folder, weights: vconv.bisect(folder, weights=weights),
    "compare": lambda folder, weights: vconv.compare([folder], quick=True, budget=0.001),
    "load": open_and_close,
    "selftest": lambda folder, weights: vconv.selftest(folder, weights, clean_runs=1),
    "reference": record,
}
"""By name: a command as a function of an artifact and the original's weights."""
_NO_WEIGHTS = {name: "has no weights" for name in ("validate", "bisect", "compare", "load", "reference")}
_NO_WRITING = "cannot write"
REFUSED: Mapping[str, Mapping[str, str]] = {
    "without weights": {**_NO_WEIGHTS, "selftest": "has no weights", "fill": ""},
    "read-only": {name: _NO_WRITING for name in ("validate", "card", "bisect", "compare")},
}
"""By state and command: what the refusal says. Whatever is not here works; only :data:`FILLED` is refused."""
FILLED = "has its weights already"


@SMALL
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("state", STATES)
def test_a_command_works_or_refuses_with_one_sentence(
    state: str, command: str, copied: Path, monkeypatch: pytest.MonkeyPatch, refused: Any
) -> None:
    STATES[state](copied)
    weights = str(DATA / "source-0.1.0") if state == "of schema 1" else "synthetic:1"
    monkeypatch.setattr(selftest, "FAULTS", selftest.FAULTS[:1])
    if state == "read-only":
        forbid_writing(copied, monkeypatch)
    expected = REFUSED.get(state, {}).get(command, FILLED if command == "fill" else "")
    if expected:
        with refused(VconvError, expected):
            COMMANDS[command](copied, weights)
        return
    found: Any = COMMANDS[command](copied, weights)
    if command in ("validate", "compare", "bisect"):
        assert found.status == "passed"


def forbid_writing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse to write into a folder, as a disk does that is mounted for reading; root may write anywhere."""

    def refuse(path: Any, *_: Any, **__: Any) -> NoReturn:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    replace = results.replace
    monkeypatch.setattr(
        results,
        "replace",
        lambda path, content: (refuse if folder in path.parents else replace)(path, content),
    )
    monkeypatch.setattr(results, "reports_folder", refuse)


@SMALL
def test_what_is_linked_stays_where_it_is_and_reports_are_written_beside_the_links(copied: Path) -> None:
    linked(copied)
    blobs = {path: path.read_bytes() for path in (copied.parent / "blobs").iterdir()}
    report = vconv.validate(copied, quick=True, budget=0.001)
    assert report.status == "passed"
    assert {path: path.read_bytes() for path in blobs} == blobs
    assert {*(copied.parent / "blobs").iterdir()} == {*blobs}
    assert not (copied / RESULTS_FILE).is_symlink() and not (copied / CARD_FILE).is_symlink()
    assert (copied / WEIGHTS_FILE).is_symlink() and (copied / MANIFEST_FILE).is_symlink()


@SMALL
def test_weights_that_alone_are_a_link_are_run_by_every_engine(copied: Path) -> None:
    store = copied.parent / "store"
    store.mkdir()
    (copied / WEIGHTS_FILE).rename(store / "weights")
    (copied / WEIGHTS_FILE).symlink_to(store / "weights")
    open_and_close(copied, "")
    vconv.load(copied, "npu-sim", "onnx-fp32").close()
    assert vconv.bisect(copied).status == "passed"


@SMALL
def test_nothing_is_written_through_a_folder_of_reports_that_is_a_link(
    copied: Path, tmp_path: Path, refused: Any
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (copied / REPORTS_FOLDER).symlink_to(outside)
    with refused(VconvError, "reports is a link", str(outside)):
        vconv.validate(copied, quick=True)
    assert list(outside.iterdir()) == []


@SMALL
def test_info_notices_a_file_that_was_cut_short(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nbytes = (copied / WEIGHTS_FILE).stat().st_size
    os.truncate(copied / WEIGHTS_FILE, nbytes - 1)
    found = vconv.info(copied)
    assert (found["missing"], found["altered"]) == ([], {WEIGHTS_FILE: nbytes - 1})
    render.artifact(found)
    shown = " ".join(capsys.readouterr().out.split())
    assert f"{WEIGHTS_FILE} has {nbytes - 1} bytes, not {nbytes}: fetch it again" in shown


@SMALL
def test_info_tells_the_prefixes_that_were_removed(
    small_artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = vconv.info(small_artifact)
    render.artifact({**document, "source": {**document["source"], "prefixes": ["module."]}})
    shown = " ".join(capsys.readouterr().out.split())
    assert "module. was removed from the names of the tensors: a training tool had added it" in shown


@SMALL
def test_info_shows_the_ledger_if_it_is_asked_for(
    small_artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert vconv.info(small_artifact)["tensors"] is None
    document = vconv.info(small_artifact, ledger=True)
    recorded = json.loads((small_artifact / "ledger.json").read_text())
    assert [(row["source"], row["action"], row["proof"]) for row in document["tensors"]] == [
        (row["source"], row["action"], row["proof"]) for row in recorded
    ]
    render.artifact(document)
    shown = " ".join(capsys.readouterr().out.split())
    first = recorded[0]
    shape = f"{first['dtype']} [{', '.join(map(str, first['shape']))}]"
    assert f"{first['action']} {first['source']} {shape} -> {first['target']}" in shown


@SMALL
def test_info_says_that_weights_were_converted_and_what_was_lost(
    small_artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = vconv.info(small_artifact)
    source = {**document["source"], "layout": "facebook", "losses": ["the pooler is dropped"]}
    render.artifact({**document, "source": source})
    shown = " ".join(capsys.readouterr().out.split())
    assert "the weights were converted from the layout of facebook" in shown
    assert "this conversion changed the outputs: the pooler is dropped" in shown


@SMALL
def test_info_draws_an_artifact_without_weights_and_says_how_to_complete_it(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without_weights(copied)
    render.artifact(vconv.info(copied))
    shown = capsys.readouterr().out.replace("\\\n", "").replace("\n", " ")
    assert "exported without weights; complete it:" in shown
    assert "vconv fill" in shown
    assert "WHERE" not in shown, "synthetic weights are drawn again"
