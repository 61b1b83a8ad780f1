"""A file beside a graph that states its contract: ``model.onnx`` may have a ``model.vconv.toml``.

    ignore = ["hidden_states.0"]

    [input]
    layout = "NCHW"
    levels = "normalised"

    [outputs]
    last_hidden_state = "features"

Every entry may be left out; what is not stated is found out.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vconv.errors import InputError
from vconv.regular_files import open_regular
from vconv.runtime.engines.adapted import Levels

ENDING = ".vconv.toml"
GREATEST_FILE = 2**14
"""Bytes; a longer file is refused."""
_LAYOUTS = ("NCHW", "NHWC")


@dataclass(frozen=True)
class Statement:
    """What a file states of a graph.

    Args:
        path: the file; empty if there is none.
        layout: the order of the input's axes; empty if it is not stated.
        levels: what the values of the input are; empty if it is not stated.
        outputs: the graph's name of an output, by what it is.
        ignore: the graph's names of outputs that are not judged.
    """

    path: str = ""
    layout: str = ""
    levels: str = ""
    outputs: Mapping[str, str] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()

    @property
    def given(self) -> bool:
        """Whether there is a file."""
        return bool(self.path)


def file_of(graph: Path) -> Path:
    """Return the path of the file that may state the contract of a graph."""
    return graph.with_name(graph.stem + ENDING)


def read_statement(graph: Path) -> Statement:
    """Read what is stated of a graph; an empty statement if there is no file beside it.

    Raises:
        InputError: the file cannot be read, or states something else.
    """
    path = file_of(graph)
    if not path.exists():
        return Statement()
    try:
        with open_regular(path) as file:
            raw = file.read(GREATEST_FILE + 1)
        if len(raw) > GREATEST_FILE:
            raise ValueError(f"more than {GREATEST_FILE // 2**10} KiB")
        document = tomllib.loads(raw.decode())
    except (OSError, ValueError, RecursionError) as error:
        raise _refusal(path, str(error)[:80], "a TOML file") from error
    unknown = sorted(document.keys() - {"input", "outputs", "ignore"})
    if unknown:
        raise _refusal(path, f"[{unknown[0]}]", "ignore, [input] and [outputs] alone")
    ignore = document.get("ignore", [])
    if not isinstance(ignore, list) or not all(isinstance(name, str) for name in ignore):
        raise _refusal(path, f"ignore = {ignore!r}"[:80], "a list of texts")
    given, outputs = (_texts(path, name, document.get(name, {})) for name in ("input", "outputs"))
    unknown = sorted(given.keys() - {"layout", "levels"})
    if unknown:
        raise _refusal(path, f"{unknown[0]} in [input]", "layout and levels alone")
    for name, choices in (("layout", _LAYOUTS), ("levels", tuple(Levels))):
        if name in given and given[name] not in choices:
            raise _refusal(path, f"{name} = {given[name]!r}", f"one of {', '.join(choices)}")
    return Statement(str(path), given.get("layout", ""), given.get("levels", ""), outputs, tuple(ignore))


def _texts(path: Path, name: str, table: Any) -> dict[str, str]:
    if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
        raise _refusal(
            path, f"[{name}] with {table!r}"[:80], 'a table of texts, such as pooled = "embedding"'
        )
    return dict(table)


def _refusal(path: Path, got: str, expected: str) -> InputError:
    return InputError(
        f"{path} does not state a contract", got=got, expected=expected, fix="correct the file, or remove it"
    )
