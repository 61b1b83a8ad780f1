from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vconv.artifact import manifest
from vconv.artifact.manifest import DIGEST_FILE, Manifest
from vconv.artifact.results import CARD_FILE, RESULTS_FILE
from vconv.errors import ArtifactError
from vconv.types import MANIFEST_FILE


@pytest.fixture
def folder(artifact: Path, tmp_path: Path) -> Path:
    for name in (MANIFEST_FILE, DIGEST_FILE):
        (tmp_path / name).write_bytes((artifact / name).read_bytes())
    return tmp_path


def rewrite(folder: Path, content: object) -> None:
    text = json.dumps(content)
    (folder / MANIFEST_FILE).write_text(text)
    (folder / DIGEST_FILE).write_text(hashlib.sha256(text.encode()).hexdigest())


def test_saving_what_was_loaded_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    manifest.load(folder).save(copy)
    for name in (MANIFEST_FILE, DIGEST_FILE):
        assert (copy / name).read_bytes() == (folder / name).read_bytes()


def test_a_manifest_lists_every_file_but_itself_and_what_may_change(artifact: Path) -> None:
    listed = set(manifest.load(artifact).files) | {MANIFEST_FILE, DIGEST_FILE}
    found = {str(path.relative_to(artifact)) for path in artifact.rglob("*") if path.is_file()}
    assert listed == {name for name in found if not name.startswith(("reports/", RESULTS_FILE, CARD_FILE))}


def test_one_changed_byte_is_an_error(folder: Path) -> None:
    path = folder / MANIFEST_FILE
    path.write_text(path.read_text().replace("fp32", "fp16", 1))
    with pytest.raises(ArtifactError, match=r"vconv\.json was changed"):
        manifest.load(folder)


def test_a_missing_digest_is_what_is_missing(folder: Path) -> None:
    (folder / DIGEST_FILE).unlink()
    with pytest.raises(ArtifactError, match=r"\.json\.sha256 is missing \| got vconv\.json without its hash"):
        manifest.load(folder)


def test_a_missing_folder_and_a_folder_without_a_manifest_say_so(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such folder"):
        manifest.load(tmp_path / "nothing")
    with pytest.raises(ArtifactError, match="a folder without a manifest"):
        manifest.load(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="got a file "):
        manifest.load(tmp_path / "file")


def test_a_digest_or_a_manifest_that_is_no_text_is_an_error(folder: Path) -> None:
    (folder / DIGEST_FILE).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ArtifactError, match=r"vconv\.json was changed"):
        manifest.load(folder)
    for raw in (b"[" * 100_000, b"\xff", b"[]", b"3"):
        (folder / MANIFEST_FILE).write_bytes(raw)
        (folder / DIGEST_FILE).write_text(hashlib.sha256(raw).hexdigest())
        with pytest.raises(ArtifactError, match="cannot read"):
            manifest.load(folder)


def test_a_newer_schema_says_which_vconv_to_use(folder: Path) -> None:
    rewrite(folder, {**json.loads((folder / MANIFEST_FILE).read_text()), "schema_version": 3})
    with pytest.raises(ArtifactError, match="schema version 3 .* schema version 1 or 2 .*version of vconv"):
        manifest.load(folder)


@pytest.mark.parametrize(
    "content", [[], {"schema_version": 1}, {"schema_version": 2}, {"schema_version": [2]}, "text"]
)
def test_what_is_no_manifest_is_an_error_in_one_line(folder: Path, content: object) -> None:
    rewrite(folder, content)
    with pytest.raises(ArtifactError) as caught:
        manifest.load(folder)
    assert "\n" not in str(caught.value)


LIES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a schema version that is true": (lambda m: m.update(schema_version=True), "schema version True"),
    "a size of nothing": (lambda m: m.update(size=[0, 64]), "size.0: Input should be greater than or equal"),
    "a size beyond all": (lambda m: m.update(size=[64, 2**17]), "size.1: Input should be less than or equal"),
    "an axis without length": (
        lambda m: m["variants"][0]["contract"]["input"].update(shape=["batch", 3, 0, 64]),
        "shape.2",
    ),
    "a number in a text": (
        lambda m: m["files"]["config.json"].update(nbytes="7"),
        "files.config.json.nbytes: Input should be a valid integer",
    ),
    "a negative count": (
        lambda m: m["variants"][1]["graph"].update(operators={"Conv": -1}),
        "operators.Conv: Input should be greater than or equal to 0",
    ),
}
"""What no manifest says, and how it is refused."""


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
@pytest.mark.parametrize("lie", LIES)
def test_what_no_manifest_says_is_named(lie: str, copied: Path, refused: Callable[..., Any]) -> None:
    change, said = LIES[lie]
    content = json.loads((copied / MANIFEST_FILE).read_text())
    change(content)
    rewrite(copied, content)
    with refused(ArtifactError, f"cannot read {copied / MANIFEST_FILE}", said):
        manifest.load(copied)


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
def test_a_manifest_is_strict_json_of_bounded_size(copied: Path, refused: Callable[..., Any]) -> None:
    text = (copied / MANIFEST_FILE).read_text()
    twice = text.rstrip()[:-1] + ', "schema_version": 2}'
    for raw, said in (
        (twice, "the name 'schema_version' twice"),
        (" " * 2**20 + text, "more than 1,048,576"),
    ):
        (copied / MANIFEST_FILE).write_text(raw)
        (copied / DIGEST_FILE).write_text(hashlib.sha256(raw.encode()).hexdigest())
        with refused(ArtifactError, f"cannot read {copied / MANIFEST_FILE}", said):
            manifest.load(copied)


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
def test_a_digest_without_end_is_read_no_further_than_its_hash(copied: Path) -> None:
    before = manifest.load(copied)
    os.truncate(copied / DIGEST_FILE, 2**40)
    assert manifest.load(copied) == before


PLACES: dict[str, Callable[[dict[str, Any], str], object]] = {
    "a variant's file": lambda content, name: content["variants"][0].update(path=name),
    "a variant's weights": lambda content, name: content["variants"][0].update(weights=name),
    "the golden file": lambda content, name: content["golden"].update(path=name),
    "the original's configuration": lambda content, name: content["original"]["configurations"].update(
        {"config.json": name}
    ),
    "a listed file": lambda content, name: content["files"].update({name: {"sha256": "0" * 64, "nbytes": 1}}),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["/etc/passwd", "../a", "a/../../b", "..", ".", "", "a//b", "C:/a", "a\\b"])
def test_a_path_that_leads_out_of_the_artifact_is_an_error_in_one_line(
    folder: Path, place: str, name: str
) -> None:
    content = json.loads((folder / MANIFEST_FILE).read_text())
    PLACES[place](content, name)
    rewrite(folder, content)
    with pytest.raises(ArtifactError, match=r"cannot read \S*vconv\.json .*not a path inside") as caught:
        manifest.load(folder)
    assert "\n" not in str(caught.value)


def test_a_manifest_cannot_be_changed_and_takes_no_unknown_fields(artifact: Path) -> None:
    loaded = manifest.load(artifact)
    with pytest.raises(ValueError, match="frozen"):
        loaded.vconv = "other"  # type: ignore[misc]
    with pytest.raises(ValueError, match="extra"):
        Manifest.model_validate({**loaded.model_dump(), "note": 1})


def test_no_path_of_the_exporting_machine_is_in_any_text_file(artifact: Path) -> None:
    for path in artifact.rglob("*.json"):
        if "reports" not in path.parts:
            assert str(artifact.parent) not in path.read_text()
            assert str(Path.home()) not in path.read_text()
