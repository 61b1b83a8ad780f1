"""Errors that a user can fix. An error is one line: the problem, what was found, what was expected, the fix.

Anything that is not a :class:`VconvError` is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from vconv.printable import printable


class VconvError(Exception):
    """An error that the user can fix.

    Args:
        what: the problem, with its cause.
        got: the value that was found.
        expected: the value that was expected instead.
        fix: the action that the user can take.
    """

    exit_status = 2

    def __init__(self, what: str, *, got: object, expected: object, fix: str) -> None:
        self.what, self.got, self.expected, self.fix = what, str(got), str(expected), fix
        super().__init__(
            printable(" ".join(f"{what} | got {got} | expected {expected} | fix: {fix}".split()))
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to rebuild the error in another process."""
        return _again, (type(self), self.what, self.got, self.expected, self.fix)


def _again(kind: type[VconvError], what: str, got: str, expected: str, fix: str) -> VconvError:
    error = kind.__new__(kind)
    VconvError.__init__(error, what, got=got, expected=expected, fix=fix)
    return error


_FEW = 10
"""The greatest number of choices that are all listed, the nearest first."""


class UnknownNameError(VconvError):
    """An unknown name; the message lists the choices, or only the nearest ones if there are many."""

    def __init__(self, kind: str, name: str, choices: Iterable[str], fix: str) -> None:
        known = list(choices)
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        others = [choice for choice in known if choice not in near]
        if len(known) <= _FEW:
            near += others
        elif not near:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0)
        left = len(known) - len(near)
        rest = f" and {left} others" if left else ""
        super().__init__(
            f"unknown {kind}", got=repr(name), expected=f"one of {', '.join(near)}{rest}", fix=fix
        )


class WeightsError(VconvError):
    """Weights that cannot be found or read, or do not fit the architecture."""


class InputError(VconvError):
    """Input images or option values that cannot be used."""


class OutputsError(InputError):
    """Outputs that a network does not have, or cannot be exported with."""


class OpsetError(InputError):
    """A network with an operator that an opset does not have."""


class PatchError(VconvError):
    """A patch that did not change what it must change in this architecture."""


class ArtifactError(VconvError):
    """An artifact that is missing, incomplete or changed, or a target folder that is occupied."""


class UnavailableError(InputError):
    """An engine that is not installed for a device. In a validation, the variant is skipped."""


class AbsentDeviceError(InputError):
    """A device that this machine does not have."""


class EngineError(VconvError):
    """An engine that refuses a graph or a batch. In a validation, the variant has failed."""

    exit_status = 1


class MemoryShortError(EngineError):
    """Too little memory on a device for a model or a batch."""


class ExportCheckError(VconvError):
    """An exported variant that does not agree with its reference; the export is discarded."""

    exit_status = 1
