"""Text that others wrote, made safe to show: a terminal obeys control characters, and hidden ones mislead."""

from __future__ import annotations

import unicodedata

_KEPT = "\n\t"
_CUT = " ..."
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Categories of Unicode: control and format characters, half characters, and separators of lines."""


def printable(text: str) -> str:
    r"""Return a text with every control character, or invisible one, as its escape: ``\x1b``."""
    if text.isprintable():
        return text
    return "".join(_escaped(one) if unicodedata.category(one) in _HIDDEN else one for one in text)


def shortened(text: str, length: int = 200) -> str:
    """Return a text as one line; a long one is cut off between words, which an ellipsis shows.

    Args:
        text: the text.
        length: the greatest length.
    """
    line = " ".join(text.split())
    if len(line) <= length:
        return line
    room = length - len(_CUT)
    return (line[: room + 1].rpartition(" ")[0] or line[:room]) + _CUT


def _escaped(character: str) -> str:
    return character if character in _KEPT else character.encode("unicode_escape").decode()
