"""Standard streams that are closed, full or cut off: a command ends as it promises, without a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FULL = (
    "error: cannot print to standard output | got No space left on device | expected a terminal, a pipe, or "
    "a file with room | fix: send the output elsewhere; what was written to files is complete\n"
)


def shell(redirection: str, *arguments: str | Path, before: str = "") -> tuple[int, str, str]:
    """Run vconv in a shell with a redirection; return its status, and what it printed."""
    line = f'{before}"$@" {redirection}'
    command = ["sh", "-c", line, "sh", sys.executable, "-m", "vconv", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("command", [("list",), ("--help",), ("info", "--help")], ids=" ".join)
def test_a_closed_or_full_standard_output(command: tuple[str, ...]) -> None:
    assert shell(">&-", *command) == (0, "", "")
    assert shell(">/dev/full", *command) == (2, "", FULL)


@pytest.mark.parametrize(
    "command", [("list", "--json"), ("list",), ("--help",), ("--version",), ("info", "--help")], ids=" ".join
)
def test_a_reader_that_has_seen_enough_is_no_failure(command: tuple[str, ...]) -> None:
    assert shell("2>&1; echo $? >&3) | true", *command, before="exec 3>&2; (") == (0, "", "0\n")


@pytest.mark.parametrize("passed", [True, False])
def test_a_reader_that_has_seen_enough_does_not_change_the_exit_status(passed: bool) -> None:
    """The command prints progress and a result, and more than a pipe and its buffers hold."""
    script = f"""
from vconv.cli import exit_by, main, progress, show
@main.command()
def validated():
    say = progress()
    for _ in range(3):
        say(70_000 * "-")
    show(70_000 * "-", print, False)
    exit_by({passed})
main(["validated"])
"""
    line = '(exec 3>&2; ("$@" 2>&1; echo $? >&3) | true)'
    done = subprocess.run(
        ["sh", "-c", line, "sh", sys.executable, "-c", script], capture_output=True, text=True
    )
    assert done.stderr == f"{0 if passed else 1}\n"


@pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
@pytest.mark.parametrize(
    "redirection",
    ["<&- >&- 2>&-", *(pytest.param(one, marks=pytest.mark.full) for one in ("2>&-", "2>/dev/full"))],
)
def test_a_validation_with_closed_streams_passes_and_says_so(redirection: str, copied: Path) -> None:
    status, out, _ = shell(redirection, "validate", copied, "--quick", "--json")
    assert status == 0
    assert (json.loads(out)["passed"] if out else ">&-" in redirection) is True
    assert len(list(copied.glob("reports/*.json"))) == 1


def test_a_file_does_not_take_the_number_of_a_closed_stream() -> None:
    script = """
import os, subprocess, sys
from vconv.streams import open_streams
open_streams()
number = os.open(os.devnull, os.O_RDONLY)
child = "import os, sys; sys.exit(os.open(os.devnull, os.O_RDONLY) < 3)"
if subprocess.run([sys.executable, "-c", child], close_fds=False).returncode:
    sys.exit(4)  # a child's first file took the number of a closed stream
print("goes nowhere")
print("goes nowhere", file=sys.stderr)
sys.exit(0 if number > 2 and sys.stdin.read() == "" else 3)
"""
    command = 'exec "$@" <&- >&- 2>&-'
    assert subprocess.run(["sh", "-c", command, "sh", sys.executable, "-c", script]).returncode == 0
