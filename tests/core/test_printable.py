from __future__ import annotations

import pytest

from vconv.errors import VconvError
from vconv.printable import printable, shortened


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ünï, 昇腾", "plain, ünï, 昇腾"),
        ("two\n\tlines", "two\n\tlines"),
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("carriage\rreturn", r"carriage\rreturn"),
        ("\u202etxt.exe", r"\u202etxt.exe"),
        ("half \ud800", r"half \ud800"),
        ("a\u2028b", r"a\u2028b"),
        ("a\u2029b", r"a\u2029b"),
    ],
)
def test_every_control_character_is_shown_as_its_escape(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_an_error_has_no_control_characters() -> None:
    error = VconvError("a\x1b[31mfile", got="\x07", expected="text", fix="none")
    assert str(error) == r"a\x1b[31mfile | got \x07 | expected text | fix: none"


@pytest.mark.parametrize(
    ("text", "length", "shown"),
    [
        ("two  words\n", 9, "two words"),
        ("two words more", 13, "two words ..."),
        ("two words more", 12, "two ..."),
        ("unbreakable", 9, "unbre ..."),
        ("", 5, ""),
    ],
)
def test_a_long_text_is_cut_off_between_words(text: str, length: int, shown: str) -> None:
    assert shortened(text, length) == shown
