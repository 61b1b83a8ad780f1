"""Signals that end a command: nothing half-made is left, and the exit status is 130.

This module imports nothing that is slow: the command line calls it before it imports anything else.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

EXIT_STATUS = 130
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal came.

    Python ends a process with the status -2 once a KeyboardInterrupt itself has left an ``exec`` of text,
    such as that of a dataclass, even if it is caught later.
    """


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let each of :data:`SIGNALS` raise :class:`Interrupted` in this block, and then end with status 130.

    A signal that was ignored before, such as SIGHUP under nohup, stays ignored. After the block all are
    ignored, because Python's own way to end a process takes a second, and by then the result is out.

    Raises:
        SystemExit: a signal came, whatever a library made of it: numpy turns one that comes
            during its import into an ImportError.
    """
    came: list[int] = []

    def interrupt(number: int, frame: Any) -> NoReturn:
        came.append(number)
        raise Interrupted

    try:
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, interrupt)
        yield
    except BaseException as error:
        _ignore()
        if not came or (isinstance(error, SystemExit) and error.code == EXIT_STATUS):
            raise
        end_interrupted()
    finally:
        _ignore()


def end_interrupted() -> NoReturn:
    """Say that the command was interrupted, and end the process."""
    with contextlib.suppress(OSError):
        print("interrupted: nothing half-made is left", file=sys.stderr, flush=True)
    sys.exit(EXIT_STATUS)


def _ignore() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
