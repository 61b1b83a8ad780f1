"""Limits: how much an output may differ from the reference, by precision and arithmetic."""

from __future__ import annotations

import hashlib
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vconv.errors import InputError, UnknownNameError
from vconv.regular_files import open_regular
from vconv.validators.accuracy.metrics import METRICS

Pair = tuple[str, str]
"""Precision of the variant, arithmetic of the device."""


@dataclass(frozen=True)
class Limit:
    """The limit that every output of a variant must keep.

    Args:
        bounds: from metric to bound.
        source: the measurement on which the bounds are based.
    """

    bounds: Mapping[str, float]
    source: str

    def tightened(self, share: float) -> Limit:
        """Return the limit that leaves a share, from 0 to 1, of the distance from a perfect result."""
        perfect = {key: 0.0 if METRICS[key].better == "low" else 1.0 for key in self.bounds}
        bounds = {key: perfect[key] + share * (bound - perfect[key]) for key, bound in self.bounds.items()}
        return replace(self, bounds=bounds)


_CARD_BOUNDS = {"vector_relative_error": 1e-2, "relative_error": 1e-2, "cosine": 0.999}
CARD = Limit(
    _CARD_BOUNDS,
    "the thresholds that published NPU adaptation reports use: relative error under 1 %, cosine over 0.999",
)

UNLIMITED = Limit({}, "none: what is held to this is measured, not judged")

_MEASURED = "benchmarks/limits.py, on synthetic weights and trained ones of DINOv2-small:"

STRICT: Mapping[Pair, Limit] = {
    ("fp32", "fp32"): Limit(
        {**_CARD_BOUNDS, "vector_relative_error": 1e-5},
        f"{_MEASURED} torch, ONNX Runtime and OpenVINO differ by 8.6e-7 to 2.7e-6; "
        "the least fault (tanh GELU, one block) by 5.6e-5",
    ),
    ("fp32", "hf32"): Limit(
        {**_CARD_BOUNDS, "vector_relative_error": 5e-4},
        f"{_MEASURED} a simulated NPU, its convolution in HF32, differs by 4.7e-5 to 1.6e-4; "
        "the least fault that it must catch (float32 RoPE periods) by 1.0e-3",
    ),
    ("fp32", "fp16"): Limit(
        {**_CARD_BOUNDS, "vector_relative_error": 5e-3},
        f"{_MEASURED} a simulated NPU, its products of float16, differs by 6.3e-4 to 1.4e-3; "
        "the least fault that it must catch (value bias dropped, one block) by 2.1e-2",
    ),
    ("fp16", "fp16"): Limit(
        {**_CARD_BOUNDS, "vector_relative_error": 5e-3},
        f"{_MEASURED} torch in fp16 differs by 7.7e-4 to 2.6e-3; "
        "the least fault that it must catch (value bias dropped, one block) by 2.1e-2",
    ),
    ("bf16", "bf16"): Limit(
        {"vector_relative_error": 3e-2, "token_cosine_min": 0.999},
        f"{_MEASURED} torch in bf16 differs by 5.7e-3 to 2.1e-2; "
        "the least fault that it must catch (images in BGR) by 1.4e-1",
    ),
    ("int8", "int8"): Limit(
        {"vector_relative_error": 0.1, "token_cosine_min": 0.98},
        "benchmarks/limits.py, on trained weights of DINOv2-small: simulated dynamic int8 by tensor differs "
        "by 7.0e-2; "
        "the least fault that it must catch (images in BGR) by 1.4e-1",
    ),
}

TABLES: Mapping[str, Mapping[Pair, Limit]] = {"strict": STRICT, "card": dict.fromkeys(STRICT, CARD)}
"""The named values of ``--within``: ``strict``, and ``card``, the thresholds of published reports."""


@dataclass(frozen=True)
class LimitsFile:
    """A file of limits.

    Args:
        path: the path, as it was given.
        sha256: the hash of its content.
    """

    path: str
    sha256: str


@dataclass(frozen=True)
class Limits:
    """The limits of a whole validation.

    Args:
        within: the value of ``--within``.
        table: a limit for every pair of precision and arithmetic.
        file: the file that it was read from; None for one of vconv's own tables.
        named: the pairs that the file names.
    """

    within: str
    table: Mapping[Pair, Limit]
    file: LimitsFile | None = None
    named: tuple[Pair, ...] = ()

    def require_use(self, artifact: str, outputs: Iterable[str]) -> None:
        """Refuse a bound of the file that applies to no output of an artifact.

        Args:
            artifact: the artifact.
            outputs: the names of its outputs.

        Raises:
            InputError: there is such a bound.
        """
        present = list(outputs)
        for pair in self.named:
            for metric in self.table[pair].bounds:
                if not any(METRICS[metric].applies_to(output) for output in present):
                    raise InputError(
                        f"{metric} in [{'.'.join(pair)}] of {self.within} bounds nothing of {artifact}",
                        got=f"outputs {', '.join(present)}",
                        expected=METRICS[metric].only,
                        fix="leave that bound out for this artifact",
                    )


GREATEST_FILE = 2**14
"""Bytes; a longer file is refused. All bounds of all tables take 3 kB."""
_MOST_DOTS = 200
"""Dots in a line. A name of many parts is a table in a table; what tomllib needs grows as its square."""
_TABLES = "tables such as [fp32.fp32], each with metric = bound"
_RANGES = {
    "low": (sys.float_info.max, "a finite number, 0 or more"),
    "high": (1.0, "a number from 0 to 1"),
}
"""By the direction in which a metric is better: the greatest possible bound, and the expectation in words."""
_SHOWN = 80
"""Number of characters of the found text that an error shows."""


def open_limits(within: str | Path) -> Limits:
    """Return the limits that ``--within`` names.

    Args:
        within: ``strict``, ``card``, or the path of a TOML file. For a pair that the file names, exactly the
            bounds of the file apply; for the others, those of ``strict``.

    Raises:
        InputError: the file cannot be read or contains something other than limits.
        UnknownNameError: it names an unknown pair or metric.
    """
    name = str(within)
    if name in TABLES:
        return Limits(name, TABLES[name])
    raw = _read(name)
    try:
        text = raw.decode()
        if any(line.count(".") > _MOST_DOTS for line in text.splitlines()):
            raise ValueError(f"a line with more than {_MOST_DOTS} dots")
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise _refusal(f"{name} is not TOML", got=error, expected=_TABLES) from error
    given = {pair: _limit(f"[{'.'.join(pair)}] of {name}", table) for pair, table in _tables(name, document)}
    if not given:
        raise _refusal(f"{name} has no limits", got="no table", expected=_TABLES)
    digest = hashlib.sha256(raw).hexdigest()
    return Limits(name, {**STRICT, **given}, LimitsFile(name, digest), tuple(given))


def _refusal(what: str, got: object, expected: str) -> InputError:
    return InputError(
        what, got=str(got)[:_SHOWN], expected=expected, fix="correct the file, or use --within strict"
    )


def _read(path: str) -> bytes:
    try:
        with open_regular(path) as file:
            raw = file.read(GREATEST_FILE + 1)
    except OSError as error:
        raise InputError(
            f"no limits at {path}",
            got=error.strerror,
            expected=f"{', '.join(TABLES)}, or a TOML file of limits",
            fix="name one of those",
        ) from error
    if len(raw) > GREATEST_FILE:
        raise _refusal(
            f"{path} is no file of limits", got=f"more than {GREATEST_FILE // 2**10} KiB", expected=_TABLES
        )
    return raw


def _tables(path: str, document: Mapping[str, Any]) -> Iterator[tuple[Pair, Mapping[str, Any]]]:
    """Yield every table of a file with its pair of precision and arithmetic."""
    for precision, tables in document.items():
        _require_table(precision, tables, path)
        for arithmetic, table in tables.items():
            name = f"{precision}.{arithmetic}"
            _require_table(name, table, path)
            if (precision, arithmetic) not in STRICT:
                known = [".".join(pair) for pair in STRICT]
                raise UnknownNameError(f"table in {path}", name, known, fix="name one of those")
            yield (precision, arithmetic), table


def _require_table(name: str, value: object, path: str) -> None:
    if not isinstance(value, Mapping):
        raise _refusal(f"{name!r} of {path} is no table", got=repr(value), expected=_TABLES)
    if not value:
        raise _refusal(f"[{name}] of {path} has no bound", got="nothing in it", expected=_TABLES)


def _limit(place: str, table: Mapping[str, Any]) -> Limit:
    """Read one table.

    Args:
        place: the name of the table in error messages.
        table: metric = bound, and optionally ``source``.
    """
    source = table.get("source", "not given")
    if not isinstance(source, str):
        raise _refusal(f"source in {place} is no text", got=repr(source), expected='source = "..."')
    bounds = {metric: _bound(metric, value, place) for metric, value in table.items() if metric != "source"}
    if not bounds:
        raise _refusal(f"{place} has no bound", got="a source alone", expected=_TABLES)
    return Limit(bounds, source)


def _bound(metric: str, value: object, place: str) -> float:
    if metric not in METRICS:
        raise UnknownNameError(f"metric in {place}", metric, METRICS, fix="name one of those")
    greatest, expected = _RANGES[METRICS[metric].better]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= greatest:
        raise _refusal(f"{metric} in {place} is no bound", got=repr(value), expected=expected)
    return float(value)
