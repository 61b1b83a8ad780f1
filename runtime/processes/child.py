"""Child processes: how they are started, and what became of one that has no result."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping

from vconv.backends import AUTOLOAD

_SHOWN = 300
"""Characters of what a child said last that a reason shows."""


def command(module: str) -> tuple[str, ...]:
    """Return what runs a module in a separate process.

    What lies in the current folder must not be taken for a library: hence -P.
    """
    return (sys.executable, "-P", "-m", module)


def environment() -> Mapping[str, str]:
    """Return this process's environment for a child: no network, and no backend that loads itself.

    See :mod:`vconv.backends`.
    """
    return {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", AUTOLOAD: "0"}


def ended(status: int, stderr: str) -> str:
    """Say how a child ended that has no result."""
    if status == -signal.SIGKILL:
        return "its own process was killed: most likely the machine ran out of memory"
    if status < 0:
        return f"its own process ended by {signal.Signals(-status).name}"
    said = (stderr.strip().splitlines() or ["nothing was said"])[-1]
    return f"its own process failed with status {status}: {said[:_SHOWN]}"
