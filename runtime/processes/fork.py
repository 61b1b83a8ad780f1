"""A copy of this process that answers lines with lines, and has all imported libraries from the start.

Only a process that has run no model can be copied: a fork has only the thread that called it, and would wait
forever for a thread pool that torch has started. Threads that the import of a library starts do no harm:
OpenBLAS, for example, restarts its threads in a fork (pthread_atfork(3)).
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import TextIO

from vconv.runtime.processes import child, file_pages

Answering = Callable[[TextIO, TextIO], None]
"""Reads lines, and writes one line for each."""
STANDARD_OUTPUT, STANDARD_ERROR = 1, 2


class Fork:
    """A copy of this process.

    Args:
        answering: runs in the copy, with the stream to read and the stream to write; the copy ends when it
            returns.
    """

    def __init__(self, answering: Answering) -> None:
        asked, answered = os.pipe(), os.pipe()
        self._said = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        pages = file_pages.resident()
        sys.stdout.flush()
        sys.stderr.flush()
        self._pid = os.fork()
        if not self._pid:
            _answer(answering, asked, answered, self._said.fileno(), pages)
        os.close(asked[0])
        os.close(answered[1])
        self._requests, self._answers = os.fdopen(asked[1], "w"), os.fdopen(answered[0])

    def ask(self, line: str) -> str:
        """Send one line; return the answer, or an empty string if the copy ended without an answer."""
        try:
            self._requests.write(line)
            self._requests.flush()
        except BrokenPipeError:
            return ""
        return self._answers.readline()

    def end(self) -> str:
        """Close the copy's input and wait until the copy has ended; return how it ended."""
        # If the copy has ended already, unsent text is still in the buffer, and closing writes it.
        with contextlib.suppress(BrokenPipeError):
            self._requests.close()
        self._answers.close()
        status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        self._said.seek(0)
        with self._said:
            return child.ended(status, self._said.read())


def _answer(
    answering: Answering, asked: tuple[int, int], answered: tuple[int, int], said: int, pages: list[range]
) -> None:
    """Run in the copy, then end it: the original's pending work must not be done a second time."""
    status = 1
    try:
        os.dup2(said, STANDARD_OUTPUT)
        os.dup2(said, STANDARD_ERROR)
        os.close(asked[1])
        os.close(answered[0])
        file_pages.touch(pages)
        with os.fdopen(asked[0]) as requests, os.fdopen(answered[1], "w") as answers:
            answering(requests, answers)
        status = 0
    except BaseException:  # noqa: BLE001 - whatever it is, the process ends with it and says it
        with open(STANDARD_ERROR, "w", closefd=False) as stream:
            traceback.print_exc(file=stream)
    finally:
        os._exit(status)
