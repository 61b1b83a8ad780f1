"""The options of an export about graphs in reduced precision."""

from __future__ import annotations

from collections.abc import Callable

import click

from vconv.cli.completion import one_of
from vconv.cli.options import TEXT, names
from vconv.precisions import AUTO, MIXED, REDUCED_PRECISIONS

_NAMES = tuple(precision.asked for precision in REDUCED_PRECISIONS.values())
_OPTIONS = (
    click.option(
        "--precision",
        metavar="NAMES",
        callback=lambda context, option, value: () if value is None else named(value),
        shell_complete=one_of(_NAMES),
        help=f"Reduced precisions to export as well, separated by commas: {', '.join(_NAMES)}. Each gets a "
        f"folder with its graphs and weights. {AUTO} plans float16 with float32 where it is needed, in the "
        f"folder {MIXED}.",
    ),
    click.option(
        "--calibration",
        multiple=True,
        type=TEXT,
        metavar="PATH",
        help=f"Photographs, or folders of some, on which {AUTO}, int8 and int8-dynamic are planned.  "
        "[default: those of --images, else made-up images]",
    ),
    click.option(
        "--max-drop",
        type=float,
        metavar="SHARE",
        help=f"The greatest share that {AUTO}, int8 and int8-dynamic may lose on these images of the "
        "direction of a token, the nearest neighbours, and the greatest logit.  [default: the limits of the "
        "precision alone]",
    ),
)


def named(text: str) -> list[str]:
    """Split the value of ``--precision`` at its commas; refuse an empty one."""
    found = names(text)
    if not found:
        raise click.UsageError("--precision is empty: leave it out for graphs in float32 alone")
    return found


def reduced_precision(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options about reduced precision to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
