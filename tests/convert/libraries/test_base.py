from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import StrictDataclassError

from vconv.convert.libraries.base import quiet, understood
from vconv.errors import InputError, VconvError, WeightsError

Refused = Callable[..., AbstractContextManager[None]]


def test_quiet_silences_warnings_and_restores_the_levels(caplog: pytest.LogCaptureFixture) -> None:
    names = ("vconv.test.one", "vconv.test.two")
    loggers = [logging.getLogger(name) for name in names]
    loggers[0].setLevel(logging.DEBUG)
    with caplog.at_level(logging.DEBUG), pytest.raises(RuntimeError, match="inside"), quiet(*names):
        for logger in loggers:
            logger.warning("a warning")
            logger.error("an error")
        raise RuntimeError("inside")
    assert caplog.messages == ["an error", "an error"]
    assert [logger.level for logger in loggers] == [logging.DEBUG, logging.NOTSET]


@pytest.mark.parametrize(
    "kind",
    [
        *(KeyError, TypeError, ValueError, RuntimeError, AssertionError, AttributeError, OSError),
        *(ImportError, StrictDataclassError),
    ],
)
def test_an_exception_of_a_library_becomes_a_one_line_error(kind: type[Exception], refused: Refused) -> None:
    fragments = ("timm cannot make the model that config.json describes", f"got {kind.__name__}: ")
    with refused(WeightsError, *fragments), understood("timm"):
        raise kind("one\n  two " + 300 * "x")


def test_what_a_library_says_is_cut_off_between_words() -> None:
    with pytest.raises(WeightsError) as caught, understood("timm"):
        raise ValueError("one two three four " * 20)
    assert caught.value.got.endswith(" ...")
    assert {*caught.value.got.removeprefix("ValueError: ").split()} == {"one", "two", "three", "four", "..."}


def test_the_error_names_the_object_and_the_configuration_file(refused: Refused) -> None:
    sentence = "timm cannot make the image processor that other.json describes"
    with (
        refused(InputError, sentence, "whether other.json was edited"),
        understood("timm", "image processor", "other.json", InputError),
    ):
        raise ValueError("no")


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(EOFError), understood("timm"):
        raise EOFError


def test_an_error_of_vconv_is_not_changed() -> None:
    with pytest.raises(WeightsError, match="mine"), understood("timm"):
        raise WeightsError("mine", got="a", expected="b", fix="c")


def test_a_python_without_docstrings_is_the_cause_of_what_fails_in_it(
    refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = SimpleNamespace(optimize=2)
    monkeypatch.setattr("vconv.convert.libraries.base.sys", SimpleNamespace(flags=flags))
    fragments = ("transformers cannot run in a Python that drops docstrings", "unset PYTHONOPTIMIZE")
    with refused(VconvError, *fragments), understood("transformers"):
        raise AttributeError("'NoneType' object has no attribute 'splitlines'")
    flags.optimize = 1
    with refused(WeightsError, "transformers cannot make the model"), understood("transformers"):
        raise AttributeError("another cause")


def test_an_error_that_names_nothing_keeps_its_words() -> None:
    with pytest.raises(WeightsError, match="'NoneType' object has no attribute 'device'"), understood("timm"):
        raise AttributeError("'NoneType' object has no attribute 'device'")
