"""Progress on standard error: lines that stay, and how far something long is."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

import click

from vconv.cli.terminal import is_redrawn
from vconv.progress import Counted
from vconv.types import Say

if TYPE_CHECKING:
    from vconv.cli.drawn import Drawn

FIRST_SECONDS = 15.0
"""Without a terminal: seconds without any output after which the first line of progress is printed."""
EVERY_SECONDS = 30.0
"""Seconds between one line of progress and the next."""


def progress() -> Say:
    """Return what prints progress of the command that runs; what is drawn goes when its context closes."""
    printer: Printed | Drawn
    if is_redrawn(sys.stderr, os.environ):
        # Its imports are done now: by the first line that is drawn, variants may be timed.
        from vconv.cli.drawn import Drawn

        printer = Drawn(sys.stderr, os.environ)
    else:
        printer = Printed(sys.stderr)
    click.get_current_context().call_on_close(printer.close)
    return printer.say


class Printed:
    """Prints lines, each with the seconds that have passed; how far something is, rarely and in no bursts.

    Args:
        stream: where to.
        clock: tells seconds.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.perf_counter) -> None:
        self._stream, self._clock = stream, clock
        self._start = clock()
        self._due = self._start + FIRST_SECONDS

    def say(self, line: str) -> None:
        """Take one line."""
        now = self._clock()
        if not isinstance(line, Counted):
            self._due = max(self._due, now + FIRST_SECONDS)
        elif now < self._due:
            return
        else:
            self._due = now + EVERY_SECONDS
        click.echo(f"{now - self._start:6.1f} s  {line}", file=self._stream)

    def close(self) -> None:
        """Do nothing: every line stays."""
