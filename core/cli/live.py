"""Progress on standard error: lines that stay, and one that is drawn anew while something long goes on."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TextIO

import click

from vconv.progress import Counted, spoken
from vconv.terminal import is_redrawn, takes_colours
from vconv.types import Say

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

FIRST_SECONDS = 15.0
"""Where nothing can be drawn anew: how long nothing was printed before it is told how far something is."""
EVERY_SECONDS = 30.0
"""And how long until it is told again."""
BAR_WIDTH = 24


def progress() -> Say:
    """Return what prints progress of the command that runs; what is drawn goes when its context closes."""
    drawn = is_redrawn(sys.stderr, os.environ)
    printer = Drawn(sys.stderr, os.environ) if drawn else Printed(sys.stderr)
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


class Drawn:
    """Prints lines, and below them draws how far something is, until the next line comes.

    No thread draws: nothing happens but when something is said, so that no clock is disturbed.

    Args:
        stream: a terminal.
        environment: the variables.
        clock: tells seconds.
        width: columns; the terminal's own by default.
    """

    def __init__(
        self,
        stream: TextIO,
        environment: Mapping[str, str],
        clock: Callable[[], float] = time.perf_counter,
        width: int | None = None,
    ) -> None:
        self._stream, self._clock, self._width = stream, clock, width
        self._colours = takes_colours(stream, environment)
        self._start = clock()
        self._lock = threading.Lock()  # weights are written in a thread
        self._live: Live | None = None

    def say(self, line: str) -> None:
        """Take one line."""
        now = f"{self._clock() - self._start:6.1f} s"
        with self._lock:
            if isinstance(line, Counted):
                self._draw(now, line)
            else:
                self._erase()
                click.echo(f"{now}  {line}", file=self._stream)

    def close(self) -> None:
        """Take away what is drawn."""
        with self._lock:
            self._erase()

    def _draw(self, now: str, line: Counted) -> None:
        bar = _bar(now, line)
        if self._live is None:
            self._live = self._begin()
        self._live.update(bar, refresh=True)

    def _erase(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _begin(self) -> Live:
        from rich.console import Console
        from rich.live import Live

        console = Console(
            file=self._stream,
            width=self._width,
            force_terminal=True,
            color_system="standard" if self._colours else None,
        )
        live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False)
        live.start()
        return live


def _bar(now: str, line: Counted) -> Table:
    """Lay out one line, cut off where a window is too narrow for it."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    left = "" if line.seconds_left is None else f", {spoken(line.seconds_left)} left"
    drawn = Table.grid(padding=(0, 1))
    for _ in range(3):
        drawn.add_column(no_wrap=True, overflow="crop")
    bar = ProgressBar(line.total, line.done, width=BAR_WIDTH, style="dim", complete_style="none")
    drawn.add_row(Text(f"{now}  {line.what}"), bar, Text(f"{line.done} of {line.total}{left}"))
    return drawn
