from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vconv.artifact import results
from vconv.artifact import staging as module
from vconv.artifact.staging import left_behind, staging
from vconv.errors import ArtifactError

HOLD = """
import sys, time
from pathlib import Path
from vconv.artifact.staging import staging
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
    for target in (tmp_path / "file" / "a", tmp_path / "file" / "a" / "b"):
        said = f"cannot write to {target} .got a file in the way: {tmp_path / 'file'} .expected"
        with pytest.raises(ArtifactError, match=said.replace(" .", r" \| ")):
            write(target, "1")


def test_a_folder_that_takes_no_new_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ArtifactError, match=r"cannot write to /proc/nope \| got /proc, which takes no new folder"
    ):
        write(Path("/proc/nope"), "1")


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


def test_a_place_where_a_disk_is_mounted_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: path == tmp_path / "disk")
    with pytest.raises(ArtifactError, match=r"disk is in the way .* mounted.*--out .*disk/NAME"):
        write(tmp_path / "disk", "1")


def test_a_link_to_nothing_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match="link is in the way .* a link to nothing"):
        write(tmp_path / "link", "1")


def test_a_link_to_an_empty_folder_stands_for_that_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    write(tmp_path / "link", "1")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder" / "vconv.json").read_text() == "1"


def test_dots_in_a_target_are_resolved_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("")
    with pytest.raises(ArtifactError, match="got a folder that is not empty"):
        write(tmp_path / "new" / "..", "1")
    write(tmp_path / "new" / ".." / "a", "1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "notes"]


@pytest.mark.parametrize("name", ["a" * 240, "é" * 127], ids=["240 bytes", "254 bytes"])
def test_a_name_as_long_as_the_file_system_takes(name: str, tmp_path: Path) -> None:
    write(tmp_path / name, "1")
    with contextlib.suppress(KeyboardInterrupt), staging(tmp_path / name, True) as stage:
        assert stage.artifact.parent.name.startswith(".")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == [name]
    results.replace(tmp_path / ("b" * 255), b"2")
    assert (tmp_path / ("b" * 255)).read_bytes() == b"2"


def test_a_name_that_is_too_long_is_an_error_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot write to .* got File name too long"):
        write(tmp_path / ("a" * 300), "1")
    assert list(tmp_path.iterdir()) == []


def test_a_move_that_the_system_refuses_is_an_error_in_one_line_and_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a", "1")
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name == "a" and ".partial-" in self.parent.name:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(ArtifactError, match="cannot put the artifact into .* busy"):
        write(tmp_path / "a", "2", force=True)
    assert (tmp_path / "a" / "vconv.json").read_text() == "1"
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("moment", ["before the old one is put aside", "after"])
def test_of_two_overlapping_replacements_the_loser_gets_a_sentence(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let another export take the old artifact away, or fill its place, between two steps of this one."""
    write(tmp_path / "a", "1")
    rename = Path.rename

    def race(self: Path, target: Path) -> Path:
        if self == tmp_path / "a":
            if moment != "after":
                rename(self, tmp_path / "elsewhere")
            else:
                rename(self, target)
                self.mkdir()
                (self / "vconv.json").write_text("other")
                return target
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", race)
    with pytest.raises(ArtifactError, match="cannot put the artifact into"):
        write(tmp_path / "a", "2", force=True)
    assert hidden(tmp_path) == []
    if moment == "after":
        assert (tmp_path / "a" / "vconv.json").read_text() == "other"


def test_a_stage_that_was_swept_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, swept = fcntl.flock, []

    def sweep_first(handle: int, operation: int) -> None:
        if not swept:
            swept.extend(hidden(tmp_path))
            swept[0].rmdir()
        lock(handle, operation)

    monkeypatch.setattr(module.fcntl, "flock", sweep_first)
    write(tmp_path / "a", "1")
    assert (tmp_path / "a" / "vconv.json").read_text() == "1"
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("kind", ["pipe", "file", "link"])
def test_what_is_no_folder_is_let_be_though_it_has_the_name(kind: str, tmp_path: Path) -> None:
    name, other = tmp_path / ".work-x", tmp_path / "other"
    other.mkdir()
    {
        "pipe": lambda: os.mkfifo(name),
        "file": lambda: name.write_text("text"),
        "link": lambda: name.symlink_to(other),
    }[kind]()
    assert list(left_behind(tmp_path, ".work-")) == []
    assert os.path.lexists(name) and other.exists()


def test_only_what_was_left_beside_this_very_name_is_swept(tmp_path: Path) -> None:
    (tmp_path / ".ab.partial-killed").mkdir()
    (tmp_path / ".a[b].partial-killed").mkdir()
    write(tmp_path / "a[b]", "1")
    assert [path.name for path in hidden(tmp_path)] == [".ab.partial-killed"]
