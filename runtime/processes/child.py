"""Child processes: how to start them, and why a child ended without a result."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping

from vconv.backends import AUTOLOAD

_SHOWN = 300
"""Characters of a child's last line of output that a reason shows."""


def command(module: str) -> tuple[str, ...]:
    """Return the command that runs a module in a separate process.

    The option -P keeps Python from importing files of the current folder in place of a library.
    """
    return (sys.executable, "-P", "-m", module)


def environment() -> Mapping[str, str]:
    """Return a child's environment: this process's, with no network and no automatically loaded backend.

    See :mod:`vconv.backends`.
    """
    return {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", AUTOLOAD: "0"}


def ended(status: int, stderr: str) -> str:
    """Return how a child without a result ended, as a sentence."""
    if status == -signal.SIGKILL:
        return "its own process was killed: most likely the machine ran out of memory"
    if status < 0:
        return f"its own process ended by {signal.Signals(-status).name}"
    said = (stderr.strip().splitlines() or ["nothing was said"])[-1]
    return f"its own process failed with status {status}: {said[:_SHOWN]}"
