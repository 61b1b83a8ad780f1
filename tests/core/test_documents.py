"""JSON that commands read back: bounded, strict, and from regular files only."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from vconv import documents
from vconv.artifact.records import FileRecord
from vconv.documents import DocumentKind
from vconv.errors import ArtifactError

KIND = DocumentKind("a list", nbytes=200_000, values=1_000, fix="write it again")


def got(path: Path, kind: DocumentKind = KIND) -> str:
    """Return why a file is refused."""
    with pytest.raises(ArtifactError) as caught:
        documents.load(path, kind)
    message = str(caught.value)
    assert (
        message == f"cannot read {path} | got {caught.value.got} | expected a list | fix: {caught.value.fix}"
    )
    return caught.value.got


def test_what_json_writes_comes_back(tmp_path: Path) -> None:
    content = {"a": [1, -2.5, 1e300, 2**64, True, None, "ünï\n"], "": {}}
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert documents.load(tmp_path / "a.json", KIND) == content


def test_a_file_without_end_is_read_no_further_than_its_bound(tmp_path: Path) -> None:
    (tmp_path / "a.json").touch()
    os.truncate(tmp_path / "a.json", 2**40)
    assert got(tmp_path / "a.json") == "more than 200,000 bytes"


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


REFUSED = {
    "no JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)": "{",
    "the name 'a' twice": '{"b": {"a": 1, "a": 1}}',
    "the text 'a\\x00b', with a zero byte": r'["a\u0000b"]',
    "the text '\\ud800', with half a character": r'{"\ud800": 1}',
    "the number NaN": "[NaN]",
    "the number -Infinity": "[-Infinity]",
    "the number 1e999": "[1e999]",
    "a number of 40 digits": "[" + "1" * 40 + "]",
    "more than 32 levels": nested(34),
    "more than 1,000 values": "[" + ",".join(["[]"] * 1_000) + "]",
    "more than 200,000 bytes": " " * 200_001,
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_document_is_refused_with_its_reason(reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(REFUSED[reason])
    assert got(tmp_path / "a.json") == reason


@pytest.mark.parametrize("levels", [999, 50_000])
def test_a_document_that_json_itself_cannot_nest_has_too_many_levels(levels: int, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(nested(levels))
    deep = DocumentKind("a list", nbytes=200_000, values=100_000, fix="write it again")
    assert got(tmp_path / "a.json", deep) == "more than 32 levels"


def test_as_many_levels_as_are_allowed_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(nested(33))
    assert documents.load(tmp_path / "a.json", KIND) == json.loads(nested(33))


def test_bytes_of_another_encoding_are_no_json(tmp_path: Path) -> None:
    for raw in ('{"a": 1}'.encode("utf-16"), b"\xff", b'\xef\xbb\xbf{"a": 1}'):
        (tmp_path / "a.json").write_bytes(raw)
        assert got(tmp_path / "a.json").startswith("no JSON: ")


def test_numbers_that_are_not_finite_are_read_only_where_they_may_be(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[NaN, Infinity]")
    kind = DocumentKind("a list", nbytes=100, values=10, non_finite=True)
    assert str(documents.load(tmp_path / "a.json", kind)) == "[nan, inf]"


def fifo(path: Path) -> None:
    os.mkfifo(path)


def link_to_a_fifo(path: Path) -> None:
    os.mkfifo(path.with_name("fifo"))
    path.symlink_to("fifo")


OTHERS: dict[str, tuple[Any, str]] = {
    "a named pipe": (fifo, "a named pipe, not a regular file"),
    "a link to a pipe": (link_to_a_fifo, "a named pipe, not a regular file"),
    "a link to a device": (lambda path: path.symlink_to("/dev/zero"), "a device, not a regular file"),
    "a folder": (Path.mkdir, "a folder, not a regular file"),
    "a link to nothing": (lambda path: path.symlink_to("nothing"), "a link to nothing"),
    "a link to itself": (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    "nothing": (lambda path: None, "no such file"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_regular_file_is_refused_and_never_waited_for(kind: str, tmp_path: Path) -> None:
    make, reason = OTHERS[kind]
    make(tmp_path / "a.json")
    assert got(tmp_path / "a.json") == reason


def test_a_link_to_a_regular_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "blob").write_text("[1]")
    (tmp_path / "a.json").symlink_to("blob")
    assert documents.load(tmp_path / "a.json", KIND) == [1]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"sha256": "0" * 64, "nbytes": "7"}, "nbytes: Input should be a valid integer"),
        ({"sha256": "0" * 64, "nbytes": True}, "nbytes: Input should be a valid integer"),
        ({"sha256": "0" * 64, "nbytes": -1}, "nbytes: Input should be greater than or equal to 0"),
        ({"sha256": "0" * 64}, "nbytes: Field required"),
        ({"sha256": "", "nbytes": 7}, "sha256: String should match pattern '^[0-9a-f]{64}$'"),
        ({"sha256": "0" * 64, "nbytes": 7, "more": 1}, "more: Extra inputs are not permitted"),
        ([], ": Input should be an object"),
    ],
)
def test_a_type_is_kept_strictly(content: Any, reason: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        documents.typed(Path("a.json"), FileRecord, content, KIND)
    assert caught.value.got == reason


def test_the_densest_document_of_every_kind_needs_little_memory(tmp_path: Path) -> None:
    kinds = [kind for kind in vars(documents).values() if isinstance(kind, DocumentKind)]
    assert len(kinds) == 7
    for kind in kinds:
        (tmp_path / "a.json").write_text("[" + ",".join(["[]"] * ((kind.values - 2) // 2)) + "]")
        tracemalloc.start()
        documents.load(tmp_path / "a.json", kind)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 200e6, kind
