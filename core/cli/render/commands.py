"""Draws commands to copy: each word is quoted for a shell, and a long command takes several lines."""

from __future__ import annotations

import shlex

from vconv.cli.render.base import HANG, Document, folded, show
from vconv.cli.terminal import WIDTH
from vconv.printable import printable


def command(title: str, *words: str) -> None:
    """Print a title, and a command to copy; a long command continues after a backslash, as in a shell.

    Args:
        title: what the command is for.
        words: the words of the command, as the program is to get them: they are quoted here.
    """
    lines = [title]
    for word in words:
        quoted = _quoted(word)
        longer = f"{lines[-1]} {quoted}"
        if len(longer) + len(" \\") <= WIDTH:
            lines[-1] = longer
        elif quoted == word:
            lines.append(HANG + "\\\n".join(folded(word, WIDTH - len(HANG) - len(" \\"), hang="")))
        else:
            lines.append(HANG + quoted)
    show(" \\\n".join(lines))


def next_command(title: str, verb: str, document: Document) -> None:
    """Print a command for an artifact, with ``--weights`` if its original is not found without it.

    Args:
        title: what the command is for.
        verb: ``validate`` or ``fill``.
        document: a result with ``artifact``, ``weights_found_again`` and, if the user gave the original's
            weights, ``weights_given``.
    """
    given = [] if document["weights_found_again"] else ["--weights", document.get("weights_given") or "WHERE"]
    command(title, "vconv", verb, document["artifact"], *given)


def _quoted(word: str) -> str:
    r"""Quote a word for a shell; with the escapes of ``$'\x1b'`` if a terminal would not show it as it is."""
    if printable(word) == word and not {"\t", "\n"} & set(word):
        return shlex.quote(word)
    return "$'" + "".join(map(_escaped, word)) + "'"


def _escaped(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if printable(character) == character and character not in "\t\n":
        return character
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x80 else f"\\U{number:08x}"
