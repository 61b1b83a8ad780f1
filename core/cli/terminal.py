"""Terminal properties: the width of a line, and whether it may have colours or be redrawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TextIO

WIDTH = 80
"""Columns of all output, on any terminal and in a pipe, so that the text is the same everywhere."""
_FORCING = ("FORCE_COLOR", "CLICOLOR_FORCE")


def takes_colours(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Return whether to use colours: https://no-color.org, https://force-color.org, CLICOLOR_FORCE.

    ``NO_COLOR`` comes first, then the variables that force colours, then the kind of stream.

    Args:
        stream: the stream to print to.
        environment: the environment variables.
    """
    if environment.get("NO_COLOR"):
        return False
    if any(environment.get(name, "0") not in ("", "0") for name in _FORCING):
        return True
    return stream.isatty() and environment.get("TERM") != "dumb"


def is_redrawn(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Return whether a line can be redrawn in place: the stream is a terminal that a person watches.

    Args:
        stream: the stream to print to.
        environment: the environment variables; continuous integration sets ``CI``, and logs every line.
    """
    return stream.isatty() and environment.get("TERM") != "dumb" and not environment.get("CI")
