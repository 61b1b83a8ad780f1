"""Progress on a terminal: lines that stay, and one below them that is drawn anew."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TextIO

import click
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vconv.cli.terminal import takes_colours
from vconv.progress import Counted, spoken

BAR_WIDTH = 24


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
        console = Console(
            file=stream,
            width=width,
            force_terminal=True,
            color_system="standard" if takes_colours(stream, environment) else None,
        )
        self._begin = partial(
            Live, console=console, auto_refresh=False, transient=True, redirect_stdout=False
        )
        self._stream, self._clock = stream, clock
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
        if self._live is None:
            self._live = self._begin()
            self._live.start()
        self._live.update(_bar(now, line), refresh=True)

    def _erase(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def _bar(now: str, line: Counted) -> Table:
    """Lay out one line, cut off where a window is too narrow for it."""
    left = "" if line.seconds_left is None else f", {spoken(line.seconds_left)} left"
    drawn = Table.grid(padding=(0, 1))
    for _ in range(3):
        drawn.add_column(no_wrap=True, overflow="crop")
    bar = ProgressBar(line.total, line.done, width=BAR_WIDTH, style="dim", complete_style="none")
    drawn.add_row(Text(f"{now}  {line.what}"), bar, Text(f"{line.done} of {line.total}{left}"))
    return drawn
