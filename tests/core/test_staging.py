from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vconv.errors import ArtifactError
from vconv.staging import staging

HOLD = """
import sys, time
from pathlib import Path
from vconv.staging import staging
with staging(Path(sys.argv[1]), force=False) as stage:
    (stage.artifact / "half").write_text("half")
    print("ready", flush=True)
    time.sleep(600)
"""


def hidden(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.startswith(".")]


def write(target: Path, text: str, force: bool = False) -> None:
    with staging(target, force) as stage:
        (stage.scratch / "note").write_text("scratch")
        (stage.artifact / "vconv.json").write_text(text)


def test_a_finished_stage_becomes_the_target_and_nothing_else_is_left(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "a", "1")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a"]
    assert [path.name for path in (tmp_path / "deep" / "a").iterdir()] == ["vconv.json"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), staging(tmp_path / "a", force=False) as stage:
        (stage.artifact / "vconv.json").write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_what_it_would_have_replaced(tmp_path: Path) -> None:
    write(tmp_path / "a", "1")
    with pytest.raises(ValueError), staging(tmp_path / "a", force=True) as stage:  # noqa: PT011
        (stage.artifact / "vconv.json").write_text("2")
        raise ValueError
    assert (tmp_path / "a" / "vconv.json").read_text() == "1"
    assert hidden(tmp_path) == []


def test_an_artifact_in_the_way_is_refused_and_force_replaces_it(tmp_path: Path) -> None:
    write(tmp_path / "a", "1")
    with pytest.raises(ArtifactError, match="is in the way .* got an artifact .*--force"):
        write(tmp_path / "a", "2")
    write(tmp_path / "a", "2", force=True)
    assert (tmp_path / "a" / "vconv.json").read_text() == "2"
    assert hidden(tmp_path) == []


def test_force_never_replaces_what_is_no_artifact(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    with pytest.raises(ArtifactError, match="is in the way .* got a folder that is not empty"):
        write(tmp_path / "home", "1", force=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="got a file"):
        write(tmp_path / "file", "1", force=True)
    assert (tmp_path / "home" / "thesis.tex").read_text() == "years of work"


def test_an_empty_folder_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    write(tmp_path / "a", "1")
    assert (tmp_path / "a" / "vconv.json").exists()


def test_of_two_exports_to_one_target_the_first_to_finish_wins_whole(tmp_path: Path) -> None:
    target = tmp_path / "a"
    with pytest.raises(ArtifactError, match="is in the way"), staging(target, force=False) as slow:
        (slow.artifact / "vconv.json").write_text("slow")
        (slow.artifact / "extra").write_text("slow")
        write(target, "fast")
    assert {path.name: path.read_text() for path in target.iterdir()} == {"vconv.json": "fast"}
    assert hidden(tmp_path) == []


def test_a_killed_export_is_no_artifact_and_the_next_one_sweeps_it_up(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "a")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    assert len(hidden(tmp_path)) == 1
    write(tmp_path / "b", "1")
    write(tmp_path / "a", "1", force=True)
    assert len(hidden(tmp_path)) == 1, "a living export's stage was swept"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "a" / "half").exists()
    write(tmp_path / "a", "2", force=True)
    assert hidden(tmp_path) == []


def test_a_parent_that_cannot_be_written_is_an_error_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot write to"):
        write(tmp_path / "file" / "a", "1")


def test_a_failure_leaves_no_parent_folder_that_was_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError), staging(tmp_path / "x" / "y" / "a", force=False):  # noqa: PT011
        raise ValueError
    assert list(tmp_path.iterdir()) == []


def test_an_artifact_that_a_killed_export_had_put_aside_goes_back(tmp_path: Path) -> None:
    left = tmp_path / ".a.partial-killed"
    (left / "replaced").mkdir(parents=True)
    (left / "replaced" / "vconv.json").write_text("old")
    with pytest.raises(ArtifactError, match="is in the way"):
        write(tmp_path / "a", "new")
    assert (tmp_path / "a" / "vconv.json").read_text() == "old"
    assert hidden(tmp_path) == []
