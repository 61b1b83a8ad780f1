"""The standard streams: closed ones are opened, a full one is one sentence, a reader may leave early."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO

from vconv.errors import VconvError

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def open_streams() -> None:
    """Open the standard streams that the caller closed, such as by ``>&-``, on the null device.

    Otherwise the next file that is opened takes the number of a closed stream, and a library that prints
    would print into that file. Text that a stream's encoding lacks, such as a path of another encoding, is
    printed as escape sequences.
    """
    for number, (name, mode) in enumerate(_STREAMS):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            # It may be that number already, and then dup2 changes nothing: children are to have it, too.
            os.dup2(opened, number)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def discard(stream: TextIO) -> None:
    """Let a stream without a reader take what is in its buffer, and all that follows, as if it was read."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


@contextlib.contextmanager
def printing() -> Iterator[None]:
    """Turn the failure of standard output in this block into one sentence.

    A reader that has seen enough, such as ``head``, is no failure: the rest of the block is not printed, and
    the command ends as if it was.

    Raises:
        VconvError: standard output takes no more text.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        if error.errno == errno.EPIPE:
            discard(sys.stdout)
            return
        raise VconvError(
            "cannot print to standard output",
            got=error.strerror or "an error",
            expected="a terminal, a pipe, or a file with room",
            fix="send the output elsewhere; what was written to files is complete",
        ) from error
