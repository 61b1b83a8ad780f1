"""A copy of this process that answers lines with lines: what it has imported is there from the start.

Only a process that has run no model can be copied: a fork has the thread that called it and no other, and
would wait in vain for a pool that torch has started. Threads that the import of a library starts do no harm:
OpenBLAS, for one, starts its own anew in a fork (pthread_atfork(3)).
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
        answering: what the copy does, given what it reads and what it writes to; it ends when that returns.
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
        """Send one line; return the answer, or an empty line where the copy ended without one."""
        try:
            self._requests.write(line)
            self._requests.flush()
        except BrokenPipeError:
            return ""
        return self._answers.readline()

    def end(self) -> str:
        """Wait until the copy has ended, once it has nothing more to read; say how it ended."""
        # What could not be written to a copy that has ended is still in the buffer.
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
    """Be the copy, and end: nothing that the process still had to do may be done twice."""
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
