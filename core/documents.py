"""Documents that commands read back: JSON in regular files, bounded before it is parsed, and then typed.

Anybody may have written these files: they come with an artifact. The module json alone would wait for a pipe,
read a device without end, take the last of two equal names, and fail in its own way on deep input.
"""

from __future__ import annotations

import functools
import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from vconv.errors import ArtifactError
from vconv.regular_files import kind_of, open_regular

DEEPEST = 32
"""Levels of nesting; a report has eight, and a configuration of a composed model about ten."""
_LONGEST_NUMBER = 32
"""Characters of a number; 64 bits and a float64 with its exponent need fewer than 26."""
_FETCH = "export the artifact again, or fetch it again"


@dataclass(frozen=True)
class DocumentKind:
    """A kind of document, with what bounds it.

    Args:
        expected: what a file of this kind contains, for error messages.
        nbytes: the greatest size of a file.
        values: the greatest number of values in it. A value of two bytes may need a kilobyte once it is
            parsed, or refused by its type.
        fix: what the user can do about a file that cannot be read.
        non_finite: whether NaN and Infinity may occur.
    """

    expected: str
    nbytes: int
    values: int
    fix: str = _FETCH
    non_finite: bool = False


MANIFEST = DocumentKind("a manifest", 2**20, 50_000)
"""A manifest has some 20 kB, and 2 kB more for each variant."""
LEDGER = DocumentKind("a ledger", 2**24, 500_000)
"""A line of some 400 bytes for each tensor: 40,000 of them."""
CONFIGURATION = DocumentKind("a JSON object", 2**22, 300_000, non_finite=True)
"""The names of 21,843 classes, in both directions, are 2 MB. Their libraries read NaN and Infinity."""
INDEX = DocumentKind(
    '{"reports": [...]}',
    2**22,
    100_000,
    "delete it: its reports stay, but count no more; then `vconv card PATH --force`",
)
"""results.json: some 300 bytes for each report."""
REPORT = DocumentKind("a report", 2**24, 300_000, "take it out of results.json")
"""Every sample of every variant: 100 for each of five batches, in some 30 variants, is 15,000 values."""
NOTE = DocumentKind("a step of a journal", 2**20, 10_000)
"""A step is of eight images, and says of each why it was skipped."""
REFERENCE = DocumentKind("what `vconv reference` wrote", 2**20, 10_000, "check the path, or record it again")
"""The description in the header of a reference: versions, images and distances, some 3 kB."""

Typed = TypeVar("Typed")


def read(path: Path, kind: DocumentKind) -> bytes:
    """Read a file of a kind.

    Raises:
        ArtifactError: it cannot be read, is not a regular file, or is too large.
    """
    try:
        with open_regular(path) as file:
            raw = file.read(kind.nbytes + 1)
    except FileNotFoundError as error:
        raise refusal(path, kind, kind_of(path) or "no such file") from error
    except PermissionError as error:
        raise refusal(path, kind, error.strerror, "repair its permissions") from error
    except (OSError, ValueError) as error:
        raise refusal(path, kind, getattr(error, "strerror", None) or error) from error
    if len(raw) > kind.nbytes:
        raise refusal(path, kind, f"more than {kind.nbytes:,} bytes")
    return raw


def parse(path: Path, raw: bytes, kind: DocumentKind) -> Any:
    """Parse the content of a file of a kind.

    Raises:
        ArtifactError: it is not JSON, has a name twice, text that is not Unicode, too many values, too many
            levels, or a number that is not finite or too long.
    """
    try:
        return _parsed(raw, kind)
    except RecursionError as error:
        raise refusal(path, kind, f"more than {DEEPEST} levels") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise refusal(path, kind, f"no JSON: {error}") from error
    except ValueError as error:
        raise refusal(path, kind, error) from error


def load(path: Path, kind: DocumentKind) -> Any:
    """Read and parse a file of a kind: see :func:`read` and :func:`parse`."""
    return parse(path, read(path, kind), kind)


def require_readable(path: Path, raw: bytes, kind: DocumentKind, fix: str) -> None:
    """Hold what is about to be written to what is read back: no command writes what another refuses.

    Args:
        path: the file, for the message.
        raw: its content.
        kind: its kind.
        fix: what the user can do.

    Raises:
        ArtifactError: it would be refused when it is read.
    """
    try:
        if len(raw) > kind.nbytes:
            raise refusal(path, kind, f"more than {kind.nbytes:,} bytes")
        parse(path, raw, kind)
    except ArtifactError as error:
        raise ArtifactError(
            f"cannot write {path}", got=error.got, expected=f"{kind.expected} that can be read again", fix=fix
        ) from error


def typed(path: Path, form: type[Typed], content: Any, kind: DocumentKind) -> Typed:
    """Check a parsed document, or a part of it, against its type.

    Raises:
        ArtifactError: a field is missing, unknown, or of another type.
    """
    try:
        return strictly(form, content)
    except ValueError as error:
        raise refusal(path, kind, error) from error


def strictly(form: type[Typed], content: Any) -> Typed:
    """Check parsed JSON against a type that pydantic knows: a number in a text is no number.

    Raises:
        ValueError: a field is missing, unknown, or of another type; the text names the first.
    """
    try:
        # From JSON, and not from the parsed values, because JSON has no tuples and no enumerations.
        found: Typed = _adapter(cast(Any, form)).validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        raise ValueError(first_of(error)) from None
    return found


def first_of(error: ValidationError) -> str:
    """Return where a document differs first from its type, and how."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place:.200}: {first['msg']:.200}"


@functools.cache
def _adapter(form: Any) -> TypeAdapter[Any]:
    return TypeAdapter(form)


def refusal(path: Path, kind: DocumentKind, got: object, fix: str = "") -> ArtifactError:
    """Return the error for a file that cannot be read as what it should be."""
    return ArtifactError(
        f"cannot read {path}", got=f"{got!s:.500}", expected=kind.expected, fix=fix or kind.fix
    )


def _parsed(raw: bytes, kind: DocumentKind) -> Any:
    text = raw.decode()
    # Commas in texts count too: the bound is far above what any file needs.
    if text.count(",") + text.count("[") + text.count("{") > kind.values:
        raise ValueError(f"more than {kind.values:,} values")
    content = json.loads(
        text,
        object_pairs_hook=_unique,
        parse_int=_integer,
        parse_float=None if kind.non_finite else _finite,
        parse_constant=None if kind.non_finite else _refuse,
    )
    _look_through(content)
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the name {twice!r:.80} twice")
    return found


def _integer(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        _refuse(text)
    return value


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"the number {text:.80}")


def _look_through(content: Any) -> None:
    """Look at every level: how many there are, and whether every text can be written again."""
    level = [content]
    for _ in range(DEEPEST + 1):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inner += value
                inner += value.values()
            elif isinstance(value, list):
                inner += value
            elif isinstance(value, str):
                _require_text(value)
        if not inner:
            return
        level = inner
    raise RecursionError


def _require_text(text: str) -> None:
    if "\0" in text:
        raise ValueError(f"the text {text!r:.80}, with a zero byte")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"the text {text!r:.80}, with half a character") from error
