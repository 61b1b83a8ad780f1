"""Progress on standard error: on a terminal, whose screen is imitated here, and elsewhere."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vconv.cli.drawn import BAR_WIDTH, Drawn
from vconv.cli.live import EVERY_SECONDS, FIRST_SECONDS, Printed
from vconv.progress import Counted

TOKEN = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|(\r\n|\n|\r)|([^\x1b\r\n]+)")


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def screen(text: str) -> list[str]:
    """Return the lines that a terminal shows after it was sent a text; blank ones at the end are left out."""
    lines, row, column = [""], 0, 0
    for numbers, letter, newline, plain in TOKEN.findall(text):
        if letter == "K":
            assert numbers == "2"
            lines[row] = ""
        elif letter == "A":
            row -= int(numbers or 1)
        elif letter:
            assert letter in "mhl", f"an escape that is not understood: {letter}"
        elif newline:
            row, column = row + newline.count("\n"), 0
            lines += [""] * (row + 1 - len(lines))
        else:
            line = lines[row].ljust(column)
            lines[row], column = line[:column] + plain + line[column + len(plain) :], column + len(plain)
    while lines and not lines[-1].strip():
        lines.pop()
    return [line.rstrip() for line in lines]


def at(*times: float) -> Callable[[], float]:
    return iter(times).__next__


def count(done: int, left: float | None = None, what: str = "rounds timed") -> Counted:
    return Counted(what, done, 100, left)


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


def drawing(terminal: Terminal, width: int = 80, **environment: str) -> Drawn:
    return Drawn(terminal, {"TERM": "xterm", **environment}, clock=at(*range(100)), width=width)


def test_counted_lines_replace_each_other(terminal: Terminal) -> None:
    printer = drawing(terminal)
    for done, left in ((10, 90.0), (20, 80.0), (30, 70.0)):
        printer.say(count(done, left))
    (line,) = screen(terminal.getvalue())
    assert re.fullmatch(r"   3\.0 s  rounds timed +━+.* +30 of 100, 70 s left", line)


def test_a_line_takes_the_place_of_what_is_drawn_and_stays(terminal: Terminal) -> None:
    printer = drawing(terminal)
    printer.say("timing 4 variants")
    printer.say(count(50))
    printer.say("another thing")
    assert screen(terminal.getvalue()) == ["   1.0 s  timing 4 variants", "   3.0 s  another thing"]
    printer.say(count(51))
    assert len(screen(terminal.getvalue())) == 3


def test_nothing_drawn_is_left_once_it_is_closed_and_the_cursor_is_there_again(terminal: Terminal) -> None:
    printer = drawing(terminal)
    printer.say("timing 4 variants")
    printer.say(count(50))
    printer.close()
    printer.close()
    text = terminal.getvalue()
    assert screen(text) == ["   1.0 s  timing 4 variants"]
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1


@pytest.mark.parametrize("width", [200, 80, 40, 20, 8])
def test_it_is_one_line_in_a_window_of_any_width(width: int, terminal: Terminal) -> None:
    printer = drawing(terminal, width)
    for done in range(1, 4):
        printer.say(count(done, 12345.0, "MB of something with a long name compared"))
        (line,) = screen(terminal.getvalue())
        assert 0 < len(line) <= width
    printer.close()
    assert screen(terminal.getvalue()) == []


@pytest.mark.parametrize("variable", ["NO_COLOR", "FORCE_COLOR"])
def test_colours_are_as_everywhere(variable: str, terminal: Terminal) -> None:
    printer = drawing(terminal, **{variable: "1"})
    printer.say(count(50, 1.0))
    assert ("m" in re.findall(r"\x1b\[[\d;]*([A-Za-z])", terminal.getvalue())) is (variable == "FORCE_COLOR")
    (line,) = screen(terminal.getvalue())
    assert line.endswith("50 of 100, 1 s left")
    # Where dim cannot be told from bright, what is not done yet is left blank.
    assert line.count("━") == (BAR_WIDTH // 2 if variable == "NO_COLOR" else BAR_WIDTH - 1)


def test_no_thread_draws(terminal: Terminal) -> None:
    before = threading.active_count()
    printer = drawing(terminal)
    printer.say(count(50))
    assert threading.active_count() == before
    printer.close()


def test_what_others_print_meanwhile_is_not_lost(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal)
    printer = drawing(terminal)
    printer.say(count(50))
    print("a warning of a library", file=sys.stderr)
    printer.say(count(51))
    printer.close()
    assert screen(terminal.getvalue()) == ["a warning of a library"]


def test_where_nothing_can_be_drawn_anew_it_is_told_first_after_a_while_and_then_rarely() -> None:
    stream = io.StringIO()
    now = [0.0]
    printer = Printed(stream, clock=lambda: now[0])
    for tenth in range(1200):
        now[0] = tenth / 10
        printer.say(count(1))
    told = [float(line.split()[0]) for line in stream.getvalue().splitlines()]
    assert told == [FIRST_SECONDS, *(FIRST_SECONDS + EVERY_SECONDS * place for place in (1, 2, 3))]


def test_a_line_that_stays_puts_it_off() -> None:
    stream = io.StringIO()
    printer = Printed(stream, clock=at(0, 14, 15, 28, 29, 30, 58, 59))
    for line in ("first", count(1), count(2), count(3), "second", count(4), count(5)):
        printer.say(line)
    told = [line.split(" s  ")[1] for line in stream.getvalue().splitlines()]
    assert told == ["first", "rounds timed: 3 of 100", "second", "rounds timed: 5 of 100"]


def test_control_characters_of_others_are_shown_and_not_obeyed(terminal: Terminal) -> None:
    hostile, shown = "reading \x1b]0;owned\x07", r"reading \x1b]0;owned\x07"
    stream = io.StringIO()
    Printed(stream, clock=at(0, 1)).say(hostile)
    assert stream.getvalue() == f"   1.0 s  {shown}\n"
    printer = drawing(terminal)
    printer.say(hostile)
    printer.say(count(10, what=hostile))
    assert terminal.getvalue().count(shown) == 2
    assert "\x1b]" not in terminal.getvalue() and "\x07" not in terminal.getvalue()
    printer.close()


def in_a_terminal(command: list[str], **environment: str) -> Iterator[str]:
    """Run a command whose standard error is a terminal; yield its standard output, and what that shows."""
    ours, theirs = pty.openpty()
    variables = {key: value for key, value in os.environ.items() if key not in ("CI", "NO_COLOR")}
    variables |= {"TERM": "xterm", **environment}
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 4096)
            except OSError:  # what a terminal says when the other side has gone
                break
        assert process.stdout is not None
        yield process.stdout.read().decode()
    os.close(ours)
    yield shown.decode()


COMMAND = """
import sys, click, time
from vconv.cli.group import Commands
from vconv.cli.live import progress
from vconv.cli import show
from vconv.progress import Counted
@click.group(cls=Commands)
def main(): pass
@main.command()
def work():
    say = progress()
    say("begun")
    for done in range(1, 9):
        say(Counted("parts", done, 10, 1.0))
    {end}
    show({{"a": 1}}, print, True)
main(["work"])
"""


@pytest.mark.parametrize(
    ("end", "last", "status"),
    [
        ("pass", "begun", "{"),
        (
            "from vconv.errors import InputError; raise InputError('x', got=1, expected=2, fix='y')",
            "error: ",
            "",
        ),
        ("raise KeyboardInterrupt", "interrupted: ", ""),
        ("raise ZeroDivisionError('a bug')", "ZeroDivisionError: a bug", ""),
    ],
    ids=["well", "error", "interruption", "bug"],
)
def test_however_a_command_ends_the_terminal_is_as_it_was(end: str, last: str, status: str) -> None:
    out, shown = in_a_terminal([sys.executable, "-c", COMMAND.format(end=end)])
    assert out.startswith(status)
    assert "parts" in shown
    lines = screen(shown)
    assert lines[0].endswith("begun") and last in lines[-1]
    assert not any("parts" in line for line in lines)
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"CI": "true"}], ids=["dumb", "CI"])
def test_a_terminal_that_is_not_watched_gets_plain_lines(environment: dict[str, str]) -> None:
    _, shown = in_a_terminal([sys.executable, "-c", COMMAND.format(end="pass")], **environment)
    assert "\x1b" not in shown
    assert [line.split(" s  ")[1] for line in shown.splitlines()] == ["begun"]


def test_a_file_gets_plain_lines(tmp_path: Path) -> None:
    with (tmp_path / "err").open("w") as file:
        command = [sys.executable, "-c", COMMAND.format(end="pass")]
        subprocess.run(
            command,
            stdout=subprocess.DEVNULL,
            stderr=file,
            check=True,
            env={**os.environ, "FORCE_COLOR": "1"},
        )
    assert [line.split(" s  ")[1] for line in (tmp_path / "err").read_text().splitlines()] == ["begun"]
