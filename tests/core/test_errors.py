from __future__ import annotations

import inspect

import pytest

from vconv import errors
from vconv.errors import UnknownNameError, VconvError

FAMILY = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, VconvError)]


def test_an_error_is_one_line_that_says_what_got_expected_and_fix() -> None:
    message = str(VconvError("a thing\nbroke", got=3, expected="4", fix="add\none"))
    assert message == "a thing broke | got 3 | expected 4 | fix: add one"


@pytest.mark.parametrize("kind", FAMILY, ids=lambda kind: kind.__name__)
def test_every_error_has_an_exit_status_that_is_not_a_pass(kind: type[VconvError]) -> None:
    assert kind.exit_status in (1, 2)


def test_an_unknown_name_lists_the_nearest_choices_first() -> None:
    error = UnknownNameError("system", "dinov3-vit16", ["vit-base", "dinov3-vits16", "resnet"], fix="look")
    assert error.expected == "one of dinov3-vits16, vit-base, resnet"


def test_of_many_choices_the_nearest_are_listed_and_the_others_counted() -> None:
    known = [f"system-{letter}" for letter in "abcdefghijkl"]
    error = UnknownNameError("system", "sytem-c", known, fix="look")
    assert error.expected.startswith("one of system-c, ")
    assert error.expected.endswith(" and 9 others")
    assert error.expected.count("system-") == 3


def test_of_many_choices_without_a_near_one_a_few_are_listed_and_the_others_counted() -> None:
    known = [f"system-{letter}" for letter in "abcdefghijkl"]
    error = UnknownNameError("system", "qqq", known, fix="`vconv list` shows every system")
    assert error.expected.endswith(" and 9 others")
    assert error.expected.count("system-") == 3
    assert "vconv list" in error.fix


def test_a_name_near_nothing_lists_every_choice() -> None:
    assert UnknownNameError("system", "zzzz", ["a", "b"], fix="look").expected == "one of a, b"
