"""Progress on a terminal: permanent lines, and one progress line below them that is redrawn."""

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
from vconv.printable import printable
from vconv.progress import Counted, spoken

BAR_WIDTH = 24


class Drawn:
    """Prints permanent lines, and draws a progress bar below them until the next permanent line.

    No thread draws: this class works only when it receives a line, so that it does not disturb timing.

    Args:
        stream: a terminal.
        environment: the environment variables.
        clock: returns the time in seconds.
        width: the number of columns; by default the terminal's width.
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
        """Print one line, or redraw the progress line."""
        now = f"{self._clock() - self._start:6.1f} s"
        with self._lock:
            if isinstance(line, Counted):
                self._draw(now, line)
            else:
                self._erase()
                click.echo(f"{now}  {printable(line)}", file=self._stream)

    def close(self) -> None:
        """Remove the progress line."""
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
    """Lay out the progress line; it is cut off if the window is too narrow."""
    left = "" if line.seconds_left is None else f", {spoken(line.seconds_left)} left"
    drawn = Table.grid(padding=(0, 1))
    for _ in range(3):
        drawn.add_column(no_wrap=True, overflow="crop")
    bar = ProgressBar(line.total, line.done, width=BAR_WIDTH, style="dim", complete_style="none")
    drawn.add_row(Text(f"{now}  {printable(line.what)}"), bar, Text(f"{line.done} of {line.total}{left}"))
    return drawn
