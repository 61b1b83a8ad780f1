"""The arguments of the functions of `vconv`: each has the type that its annotation says, or is refused."""

from __future__ import annotations

import functools
import inspect
import numbers
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from vconv.errors import InputError
from vconv.printable import shortened

P = ParamSpec("P")
R = TypeVar("R")

_TOLD: Mapping[Any, str] = {
    **{str: "a text", Path: "a path", int: "a whole number", float: "a number", bool: "True or False"},
    type(None): "None",
}
"""By annotation: its words in an error. Any other annotation is a class, which is named."""


def checked_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Check the types of a function's arguments before it is called.

    A text or a path for an argument that is a sequence of them stands for a sequence of one.

    Raises:
        InputError: when the function is called: an argument is of another type than its annotation says.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        given, hints = signature.bind(*args, **kwargs), typing.get_type_hints(function)
        for name, value in given.arguments.items():
            given.arguments[name] = _checked(function.__name__, name, value, hints[name])
        return function(*given.args, **given.kwargs)

    return call


def _checked(function: str, name: str, value: Any, hint: Any) -> Any:
    if _fits(value, hint):
        return value
    if isinstance(value, str | os.PathLike) and _fits((value,), hint):
        return (value,)
    raise InputError(
        f"the argument {name} is of another type",
        got=f"{shortened(repr(value), 80)}, of the type {type(value).__name__}",
        expected=_told(hint),
        fix=f"see help(vconv.{function})",
    )


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a value is of an annotated type; numbers of numpy are, True and False are not."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in typing.get_args(hint))
    if typing.get_origin(hint) is Callable:
        return callable(value)
    if typing.get_origin(hint) is Sequence:
        (item,) = typing.get_args(hint)
        plain = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        return plain and all(_fits(one, item) for one in value)
    if hint in (int, float):
        number = numbers.Integral if hint is int else numbers.Real
        return isinstance(value, number) and not isinstance(value, bool)
    return isinstance(value, os.PathLike if hint is Path else hint)


def _told(hint: Any) -> str:
    """Return what an annotation expects, in words."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(map(_told, typing.get_args(hint)))
    if typing.get_origin(hint) is Sequence:
        return f"a list, each item {_told(*typing.get_args(hint))}"
    if typing.get_origin(hint) is Callable:
        return "a function"
    return _TOLD.get(hint, f"a {getattr(hint, '__name__', hint)}")
