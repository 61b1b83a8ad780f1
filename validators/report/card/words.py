"""The words of a card in each language that are not in its template, by table and key."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.resources import files

from vconv.validators.report.card.markdown import escaped

LANGUAGES = ("en", "zh")
"""The languages of cards: English, and Chinese in simplified characters."""
TEMPLATES = files("vconv.validators.report") / "templates"


@dataclass(frozen=True)
class Words:
    """The words of one language.

    Args:
        language: the code of the language, of :data:`LANGUAGES`.
        tables: the words, by table (``headings``, ``patches``, ...) and key.
    """

    language: str
    tables: Mapping[str, Mapping[str, str]]

    def say(self, table: str, key: str) -> str:
        """Return the words for a key; the key itself, as text, if the table does not have it."""
        return self.tables[table].get(key) or escaped(key)

    def of_file(self, path: str, *tables: str) -> str:
        """Return what a file is, by its path or by the first pattern that fits it; empty if no table has it.

        Args:
            path: its path.
            tables: the tables of paths and of patterns, such as ``logs/*.log``. Case does not matter in a
                pattern.
        """
        known = {key: text for table in tables for key, text in self.tables[table].items()}
        fitting = (text for key, text in known.items() if fnmatchcase(path.upper(), key.upper()))
        return known.get(path) or next(fitting, "")

    def reword(self, table: str, text: str) -> str:
        """Return a text with the phrases that a table has patterns for in this language, as Markdown."""
        for pattern, said in self.tables[table].items():
            text = re.sub(pattern, said, text)
        return escaped(text)


def words_of(language: str) -> Words:
    """Read the words of a language."""
    return Words(language, tomllib.loads((TEMPLATES / f"card.{language}.toml").read_text("utf-8")))
