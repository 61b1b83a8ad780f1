"""What ATC reports of the fusion passes that it ran, and whether one of them does harm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vconv.convert.ascend.fusions.base import Fusion
from vconv.convert.ascend.fusions.switch_file import effects, harmful_effects
from vconv.convert.ascend.fusions.table import FUSIONS, GELU
from vconv.regular_files import open_regular

GREATEST_BYTES = 2**24
"""The greatest ``fusion_result.json`` that is read; those seen in public have 30 kB at most."""
WAY_OUT = "report this version of CANN, and ship the ONNX graph in place of the offline model"
"""What to do if a pass changed a result or a precision although it is turned off."""


@dataclass(frozen=True)
class CompilerReport:
    """The passes that changed a graph while it was compiled.

    Args:
        effects: how often each of them did, by name; 0 for a pass that found its pattern and changed nothing.
    """

    effects: Mapping[str, int]

    @classmethod
    def read(cls, path: Path) -> CompilerReport:
        """Read a ``fusion_result.json``.

        Raises:
            OSError: there is no file that can be opened.
            ValueError: the file has none of the known forms; the text says in what it differs.
        """
        with open_regular(path) as file:
            content = file.read(GREATEST_BYTES)
        try:
            return cls(effects(content.decode()))
        except UnicodeDecodeError as error:
            raise ValueError("it is not text in UTF-8") from error

    @property
    def worst(self) -> Fusion | None:
        """The first pass that changed a result or a precision; None if none did."""
        return next((FUSIONS[name] for name in harmful_effects(self.effects)), None)

    @property
    def harm(self) -> str:
        """What that pass did, as a sentence; empty if none did."""
        worst = self.worst
        if worst is None:
            return ""
        return f"{worst.name} put {worst.becomes} in {self.effects[worst.name]} places: {worst.numbers}"

    @property
    def gelu(self) -> bool:
        """Whether that pass replaced a GELU."""
        return self.worst is not None and self.worst.becomes == GELU
