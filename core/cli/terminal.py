"""What a terminal takes: how wide a line is, and whether it may have colours or be drawn anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TextIO

WIDTH = 80
"""Columns of every drawing, on a terminal of any width and in a pipe: the same text everywhere."""
_FORCING = ("FORCE_COLOR", "CLICOLOR_FORCE")


def takes_colours(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Tell whether colours are wanted: https://no-color.org, https://force-color.org, CLICOLOR_FORCE.

    ``NO_COLOR`` is above all; what forces colours is above what a stream is.

    Args:
        stream: what is printed to.
        environment: the variables.
    """
    if environment.get("NO_COLOR"):
        return False
    if any(environment.get(name, "0") not in ("", "0") for name in _FORCING):
        return True
    return stream.isatty() and environment.get("TERM") != "dumb"


def is_redrawn(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Tell whether a line can be drawn anew in its place: by someone who watches a terminal.

    Args:
        stream: what is printed to.
        environment: the variables; continuous integration sets ``CI``, and keeps every line in a log.
    """
    return stream.isatty() and environment.get("TERM") != "dumb" and not environment.get("CI")
