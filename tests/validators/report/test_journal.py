"""A journal survives being killed at any instant, and is never believed where it is torn."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vconv.errors import ArtifactError
from vconv.validators.report import journal
from vconv.validators.report.journal import Journal, JournalTable, discard, open_journal

TABLES = {
    "place": JournalTable("<i8"),
    "figures": JournalTable("<f8", (2, 3)),
    "features": JournalTable("<f4", (5,)),
}
STEPS, WRITES = 3, 4
"""Steps of the job, and how often each writes: once a table, and its line."""


def step(number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a step of an imagined job gives; the second has no rows."""
    rows = [2, 0, 3][number]
    generator = np.random.Generator(np.random.PCG64(number))
    content = {name: generator.standard_normal((rows, *table.shape)) for name, table in TABLES.items()}
    return content | {"place": np.arange(rows) + 10 * number}, {"step": number, "said": "ünï\n"}


def work(folder: Path) -> dict[str, Any]:
    """Do the job, or what is left of it; return all that was kept."""
    with open_journal(folder, TABLES) as found:
        for number in range(found.steps, STEPS):
            found.append(*step(number))
        return content_of(found)


def content_of(found: Journal) -> dict[str, Any]:
    arrays = {name: found.array(name).tolist() for name in TABLES}
    return arrays | {"notes": list(found.notes()), "steps": found.steps, "rows": found.rows}


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, Any]:
    return work(tmp_path / "whole")


def test_what_was_added_is_there_when_the_journal_is_opened_again(
    tmp_path: Path, whole: dict[str, Any]
) -> None:
    expected = [step(number)[0] for number in range(STEPS)]
    for name, table in TABLES.items():
        rows = np.concatenate([rows[name] for rows in expected]).astype(table.dtype)
        assert whole[name] == rows.tolist()
    assert whole["notes"] == [step(number)[1] for number in range(STEPS)]
    assert (whole["steps"], whole["rows"]) == (3, 5)
    assert work(tmp_path / "whole") == whole


KILLED = """
import os, signal, sys
from pathlib import Path
from vconv.validators.report import journal
sys.path.insert(0, {tests!r})
from test_journal import work

write, left = journal._add, {writes}

def kill(path, content):
    global left
    if left == 0:
        with path.open("ab") as file:
            file.write(content[: int(len(content) * {share})])
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    write(path, content)

journal._add = kill
work(Path({folder!r}))
"""


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("writes", [1, WRITES - 1, WRITES, 2 * WRITES - 1, 2 * WRITES + 1, 3 * WRITES - 1])
def test_a_kill_loses_one_step_at_most(
    writes: int, share: float, tmp_path: Path, whole: dict[str, Any]
) -> None:
    folder = tmp_path / "killed"
    script = KILLED.format(tests=str(Path(__file__).parent), writes=writes, share=share, folder=str(folder))
    killed = subprocess.run([sys.executable, "-c", script], check=False)
    assert killed.returncode == -signal.SIGKILL
    line_is_whole = share == 1.0 and writes % WRITES == WRITES - 1
    with open_journal(folder, TABLES) as found:
        assert found.steps == writes // WRITES + line_is_whole
    assert work(folder) == whole


def damaged(path: Path, change: str) -> None:
    content = bytearray(path.read_bytes())
    if change == "cut":
        content = content[:-1]
    elif change == "flipped":
        content[-3] ^= 1
    elif change == "gone":
        content = bytearray()
    else:
        content += b"more"
    path.write_bytes(content)


@pytest.mark.parametrize("change", ["cut", "flipped", "gone", "longer"])
@pytest.mark.parametrize("name", ["journal", *(f"{name}.rows" for name in TABLES)])
def test_a_step_whose_line_or_rows_were_damaged_is_done_again(
    name: str, change: str, tmp_path: Path, whole: dict[str, Any]
) -> None:
    folder = tmp_path / "damaged"
    work(folder)
    damaged(folder / name, change)
    with open_journal(folder, TABLES) as found:
        kept = {"gone": 0, "longer": STEPS}.get(change, STEPS - 1)
        assert found.steps == kept
        files = {path: path.stat().st_size for path in folder.glob("*.rows")}
        assert files == {folder / f"{key}.rows": found.rows * table.nbytes for key, table in TABLES.items()}
    assert work(folder) == whole


def test_steps_that_do_not_hold_any_more_are_forgotten(tmp_path: Path, whole: dict[str, Any]) -> None:
    folder = tmp_path / "journal"
    work(folder)
    with open_journal(folder, TABLES) as found:
        found.keep(STEPS + 1)
        assert content_of(found) == whole
        found.keep(1)
        assert (found.steps, found.rows) == (1, 2)
        assert [note["step"] for note in found.notes()] == [0]
        found.append(*step(1))
        found.append(*step(2))
        assert content_of(found) == whole


def test_a_second_process_is_refused_and_the_first_goes_on(tmp_path: Path, whole: dict[str, Any]) -> None:
    folder = tmp_path / "journal"
    with open_journal(folder, TABLES) as found:
        with (
            pytest.raises(ArtifactError, match=r"in use .* fix: wait until it is done"),
            open_journal(folder, TABLES),
        ):
            pass
        discard(folder)
        for number in range(STEPS):
            found.append(*step(number))
        assert content_of(found) == whole


def test_a_journal_that_is_discarded_is_gone(tmp_path: Path) -> None:
    work(tmp_path / "journal")
    discard(tmp_path / "journal")
    assert list(tmp_path.iterdir()) == []


def test_rows_of_another_shape_are_a_bug(tmp_path: Path) -> None:
    rows, note = step(0)
    with open_journal(tmp_path / "journal", TABLES) as found, pytest.raises(ValueError, match="rows of feat"):
        found.append(rows | {"features": np.zeros((2, 4))}, note)


def test_a_full_disk_is_a_sentence_and_what_was_done_stays(
    tmp_path: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "journal"
    with open_journal(folder, TABLES) as found:
        found.append(*step(0))
        with monkeypatch.context() as full, pytest.raises(ArtifactError, match="the disk is full"):
            full.setattr(journal, "_add", _no_room)
            found.append(*step(1))
    assert work(folder) == whole


def _no_room(path: Path, content: bytes) -> None:
    path.open("ab").write(content[:5])
    raise OSError(28, os.strerror(28))


def put_line(folder: Path, text: str) -> None:
    """Write a journal of one line, whose hash is made to fit."""
    work(folder)
    digest = hashlib.sha256(text.encode()).hexdigest()
    (folder / "journal").write_text(f"{digest} {text}\n")


EMPTY = hashlib.sha256(b"").hexdigest()
LINES = {
    "no JSON": "{",
    "no step": "3",
    "a text for a number": f'{{"rows": "0", "sha256": "{EMPTY}", "note": {{"step": 0}}}}',
    "a name twice": f'{{"rows": 0, "rows": 0, "sha256": "{EMPTY}", "note": {{"step": 0}}}}',
    "less than nothing": f'{{"rows": -1, "sha256": "{EMPTY}", "note": {{"step": 0}}}}',
    "more than there is": f'{{"rows": {10**12}, "sha256": "{EMPTY}", "note": {{"step": 0}}}}',
    "a note of another type": f'{{"rows": 0, "sha256": "{EMPTY}", "note": {{"step": "first"}}}}',
    "a field more": f'{{"rows": 0, "sha256": "{EMPTY}", "note": {{"step": 0}}, "more": 0}}',
    "other spaces": f'{{"rows":0, "sha256": "{EMPTY}", "note": {{"step": 0}}}}',
    "another order": f'{{"sha256": "{EMPTY}", "rows": 0, "note": {{"step": 0}}}}',
    "a line without end": f'{{"rows": 0, "sha256": "{EMPTY}", "note": {{"step": 0}}{" " * 2**20}}}',
}


@pytest.mark.parametrize("damage", LINES)
def test_a_step_that_is_none_is_done_again(damage: str, tmp_path: Path, whole: dict[str, Any]) -> None:
    put_line(tmp_path / "journal", LINES[damage])
    with open_journal(tmp_path / "journal", TABLES, dict[str, int]) as found:
        assert (found.steps, list(found.notes())) == (0, [])
    assert work(tmp_path / "journal") == whole


def test_a_step_without_rows_is_one(tmp_path: Path) -> None:
    put_line(tmp_path / "journal", f'{{"rows": 0, "sha256": "{EMPTY}", "note": {{"step": 0}}}}')
    with open_journal(tmp_path / "journal", TABLES, dict[str, int]) as found:
        assert (found.steps, list(found.notes())) == (1, [{"step": 0}])


@pytest.mark.parametrize("kind", ["a link", "what is no file"])
def test_a_journal_is_written_through_no_link_and_into_no_pipe(kind: str, tmp_path: Path) -> None:
    folder, outside = tmp_path / "journal", tmp_path / "outside"
    folder.mkdir()
    outside.write_text("kept")
    if kind == "a link":
        (folder / "figures.rows").symlink_to(outside)
    else:
        os.mkfifo(folder / "figures.rows")
    with pytest.raises(ArtifactError, match=f"is in the way .* got {kind} "), open_journal(folder, TABLES):
        pass
    assert outside.read_text() == "kept"


def test_a_line_can_be_read_by_eye(tmp_path: Path) -> None:
    work(tmp_path / "journal")
    line = (tmp_path / "journal" / "journal").read_text().splitlines()[0]
    assert json.loads(line.partition(" ")[2])["note"] == {"step": 0, "said": "ünï\n"}
