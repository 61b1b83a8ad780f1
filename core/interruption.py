"""Signals that end a command: nothing half-made is left, and the exit status is 130.

This module imports nothing that is slow: the command line calls it before it imports anything else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

EXIT_STATUS = 130
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE_SECONDS = 10.0
"""The time for a library to return after a signal. Python cannot interrupt what runs outside of it."""


class Interrupted(KeyboardInterrupt):
    """A signal came.

    Python ends a process with the status -2 once a KeyboardInterrupt itself has left an ``exec`` of text,
    such as that of a dataclass, even if it is caught later.
    """


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let each of :data:`SIGNALS` raise :class:`Interrupted` in this block, and then end with status 130.

    A signal that was ignored before, such as SIGHUP under nohup, stays ignored. After the block all are
    ignored, because Python's own way to end a process takes a second, and by then the result is out. If a
    library does not return for :data:`PATIENCE_SECONDS`, such as an engine that runs a graph without end, the
    process ends all the same.

    Raises:
        SystemExit: a signal came, whatever a library made of it: numpy turns one that comes
            during its import into an ImportError.
    """
    came: list[int] = []

    def interrupt(number: int, frame: Any) -> NoReturn:
        came.append(number)
        raise Interrupted

    stop = _end_if_stuck(came)
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
        stop()


def _end_if_stuck(came: list[int]) -> Callable[[], None]:
    """Watch for signals in a thread, and end the process if Python does not handle one in time.

    Args:
        came: the signals that Python has handled; the thread reads it.

    Returns:
        A function that ends the watch.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)

    def watch() -> None:
        while number := reader.recv(1):
            if number[0] not in SIGNALS:
                continue
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not came and time.monotonic() < deadline:
                time.sleep(0.1)
            if not came:
                with contextlib.suppress(OSError):
                    os.write(2, _STUCK.encode())
                os._exit(EXIT_STATUS)
            return

    def stop() -> None:
        signal.set_wakeup_fd(before)
        writer.close()

    threading.Thread(target=watch, daemon=True).start()
    return stop


_STUCK = (
    "interrupted: a library did not return in time, and the process was ended; "
    "the next command removes what is half-made\n"
)


def end_interrupted() -> NoReturn:
    """Say that the command was interrupted, and end the process."""
    with contextlib.suppress(OSError):
        print("interrupted: nothing half-made is left", file=sys.stderr, flush=True)
    sys.exit(EXIT_STATUS)


def _ignore() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
