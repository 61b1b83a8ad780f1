from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from vconv.cli.terminal import is_redrawn, takes_colours


class Stream:
    """A stream that is a terminal, or is not."""

    def __init__(self, terminal: bool) -> None:
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


COLOURED = [
    (True, {}, True),
    (False, {}, False),
    (True, {"NO_COLOR": "1"}, False),
    (True, {"NO_COLOR": ""}, True),
    (True, {"TERM": "dumb"}, False),
    (False, {"FORCE_COLOR": "1"}, True),
    (False, {"CLICOLOR_FORCE": "1"}, True),
    (False, {"FORCE_COLOR": "0"}, False),
    (False, {"CLICOLOR_FORCE": "0"}, False),
    (False, {"FORCE_COLOR": ""}, False),
    (True, {"TERM": "dumb", "FORCE_COLOR": "1"}, True),
    (True, {"NO_COLOR": "1", "FORCE_COLOR": "1", "CLICOLOR_FORCE": "1"}, False),
]


@pytest.mark.parametrize(("terminal", "variables", "expected"), COLOURED)
def test_colours_are_switched_by_the_usual_variables(
    terminal: bool, variables: dict[str, str], expected: bool
) -> None:
    stream = Stream(terminal)
    assert takes_colours(stream, {"TERM": "xterm", **variables}) is expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("terminal", "variables", "expected"),
    [
        (True, {}, True),
        (False, {}, False),
        (False, {"FORCE_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
        (True, {"CI": "true"}, False),
        (True, {"NO_COLOR": "1"}, True),
    ],
)
def test_a_line_is_drawn_anew_only_where_someone_watches(
    terminal: bool, variables: dict[str, str], expected: bool
) -> None:
    stream = Stream(terminal)
    assert is_redrawn(stream, {"TERM": "xterm", **variables}) is expected  # type: ignore[arg-type]


@pytest.mark.parametrize("as_json", [False, True], ids=["drawn", "JSON"])
@pytest.mark.parametrize(("terminal", "variables", "expected"), COLOURED[:8])
def test_the_command_line_prints_no_escape_where_colours_are_off(
    terminal: bool, variables: dict[str, str], expected: bool, as_json: bool
) -> None:
    environment = {key: value for key, value in os.environ.items() if "COLOR" not in key and key != "CI"}
    environment |= {"TERM": "xterm-256color", **variables}
    command = [sys.executable, "-m", "vconv", "list", *["--json"] * as_json]
    ours, theirs = pty.openpty() if terminal else os.pipe()
    with subprocess.Popen(command, env=environment, stdout=theirs) as process:
        os.close(theirs)
        shown = b"".join(iter(lambda: _read(ours), b""))
    os.close(ours)
    assert process.returncode == 0
    assert b"dinov3-vits16" in shown
    assert (b"\x1b" in shown) is (expected and not as_json)


def _read(handle: int) -> bytes:
    try:
        return os.read(handle, 4096)
    except OSError:  # what a terminal says when the other side has gone
        return b""
