from __future__ import annotations

import faulthandler
import os
import signal
import sys
from typing import TextIO

import pytest

from vconv.runtime.processes.fork import Fork

END = "its own process "


def echo(requests: TextIO, answers: TextIO) -> None:
    for line in requests:
        answers.write(line.upper())
        answers.flush()


def test_a_copy_answers_line_by_line_until_it_is_ended() -> None:
    fork = Fork(echo)
    assert [fork.ask("one\n"), fork.ask("two\n")] == ["ONE\n", "TWO\n"]
    assert fork.end() == END + "failed with status 0: nothing was said"


def kill(number: int) -> None:
    faulthandler.disable()
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGSEGV, "ended by SIGSEGV"),
        (signal.SIGKILL, "was killed: most likely the machine ran out of memory"),
    ],
)
def test_how_a_copy_ended_that_gave_no_answer_is_known(number: int, said: str) -> None:
    fork = Fork(lambda requests, answers: kill(number))
    assert fork.ask("one\n") == ""
    assert fork.end() == END + said


def test_an_error_in_a_copy_is_its_last_words_and_stays_there() -> None:
    fork = Fork(lambda requests, answers: [][1])
    assert fork.ask("one\n") == ""
    assert fork.end() == END + "failed with status 1: IndexError: list index out of range"


def test_what_a_copy_prints_is_no_answer(capfd: pytest.CaptureFixture[str]) -> None:
    def loud(requests: TextIO, answers: TextIO) -> None:
        os.write(1, b"from its depths\n")
        sys.exit(3)

    fork = Fork(loud)
    assert fork.ask("one\n") == ""
    assert fork.end() == END + "failed with status 1: SystemExit: 3"
    assert capfd.readouterr() == ("", "")


def test_a_copy_does_nothing_that_the_process_still_had_to_do() -> None:
    ran: list[int] = []
    try:
        fork = Fork(lambda requests, answers: None)
        fork.end()
    finally:
        ran.append(os.getpid())
    assert ran == [os.getpid()]
