"""Progress on standard error: permanent lines, and the progress of long work."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

import click

from vconv.cli.terminal import is_redrawn
from vconv.printable import printable
from vconv.progress import Counted
from vconv.streams import discard
from vconv.types import Say

if TYPE_CHECKING:
    from vconv.cli.drawn import Drawn

FIRST_SECONDS = 15.0
"""Without a terminal: seconds without any output before the first progress line is printed."""
EVERY_SECONDS = 30.0
"""Seconds between two progress lines, without a terminal."""


def progress() -> Say:
    """Return the function that prints a command's progress; the progress line is removed at the end."""
    printer: Printed | Drawn
    if is_redrawn(sys.stderr, os.environ):
        # Import it now: when the first progress line is drawn, timing may already run.
        from vconv.cli.drawn import Drawn

        printer = Drawn(sys.stderr, os.environ)
    else:
        printer = Printed(sys.stderr)
    click.get_current_context().call_on_close(printer.close)
    return printer.say


class Printed:
    """Prints lines with the elapsed seconds; prints progress lines rarely, and never in bursts.

    Args:
        stream: the stream to print to.
        clock: returns the time in seconds.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.perf_counter) -> None:
        self._stream, self._clock = stream, clock
        self._start = clock()
        self._due = self._start + FIRST_SECONDS

    def say(self, line: str) -> None:
        """Print one line; a progress line only when it is due."""
        now = self._clock()
        if not isinstance(line, Counted):
            self._due = max(self._due, now + FIRST_SECONDS)
        elif now < self._due:
            return
        else:
            self._due = now + EVERY_SECONDS
        try:
            click.echo(f"{now - self._start:6.1f} s  {printable(line)}", file=self._stream)
        except OSError as error:  # a log without room or reader costs its lines, not the work of hours
            if error.errno == errno.EPIPE:
                discard(self._stream)

    def close(self) -> None:
        """Do nothing: all lines are permanent."""
