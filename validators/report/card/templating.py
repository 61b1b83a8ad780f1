"""The templates of the card and of a published repository, and what is done to their text."""

from __future__ import annotations

import functools
import json
import shlex
from typing import TYPE_CHECKING

from vconv.printable import printable
from vconv.validators.report.card.markdown import code, escaped
from vconv.validators.report.card.words import TEMPLATES

if TYPE_CHECKING:
    from jinja2 import Environment


@functools.cache  # to compile the templates takes longer than to render them
def environment() -> Environment:
    """Return the environment in which templates are rendered; an unknown name in a template is an error."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    # The card is Markdown, not HTML. Text that others wrote is escaped where it is added.
    found = Environment(
        loader=FunctionLoader(lambda name: (TEMPLATES / name).read_text("utf-8")),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= {"escaped": escaped, "code": code, "quoted": _quoted, "python": json.dumps}
    return found


def _quoted(text: str) -> str:
    """Return a text as one word of a shell, on one line."""
    return shlex.quote(" ".join(text.split()))


def tidied(text: str) -> str:
    """Replace several empty lines by one, and remove those at the beginning and the end."""
    lines = [line.rstrip() for line in printable(text).splitlines()]
    kept = [line for place, line in enumerate(lines) if line or (place and lines[place - 1])]
    return "\n".join(kept).strip() + "\n"
