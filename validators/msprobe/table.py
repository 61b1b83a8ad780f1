"""The table `result_TIME.csv` of `msprobe compare -m offline_model`: its columns, its rows, and reading it.

Sources: ``msaccucmp/vector_cmp/fusion_manager/compare_result.py`` and ``vector_cmp/vector_comparison.py`` for
the columns and the order of the rows; ``infer/offline/compare/msquickcmp/cmp_process.py`` for the last three
columns and their thresholds.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vconv.errors import InputError
from vconv.validators.msprobe.figures import (
    COSINE,
    FIGURES,
    KL_DIVERGENCE,
    MEAN_RELATIVE,
    NONE,
    RELATIVE_L2,
    RMSE,
    SPREAD,
    Figures,
)
from vconv.validators.msprobe.mapping import DATA, Operator

HEADER = (
    *("Index", "OpType", "NPUDump", "DataType", "Address", "GroundTruth", "DataType", "TensorIndex", "Shape"),
    *FIGURES,
    *("CompareFailReason", "IsNpuOps", "IsOutputNode", "IsPrecisionError"),
)
"""The columns. The first DataType is the target's, the second the golden tensor's."""
GROUND_TRUTH, TYPE, TENSOR = "GroundTruth", "OpType", "TensorIndex"
_NEEDED = (GROUND_TRUTH, TYPE, "NPUDump", TENSOR, COSINE, RELATIVE_L2)
LEAST_COSINE = 0.99
GREATEST: Mapping[str, float] = {RELATIVE_L2: 0.05, KL_DIVERGENCE: 0.005, RMSE: 1.0, MEAN_RELATIVE: 1.0}
"""What a figure may be at most, for msprobe not to call it a precision error."""
_MOST_BYTES = 100 * 2**20
"""The largest file that is read: msprobe itself refuses a larger one (``cmp_utils/utils.py``)."""
_YES_NO = ("NO", "YES")


@dataclass(frozen=True)
class Row:
    """One tensor of the table.

    Args:
        index: the number of its operator.
        operator: its operator.
        output: which of the operator's outputs it is.
        dtypes: the types of the target and the golden tensor.
        elements: how many elements it has.
        figures: its figures.
        is_output: whether the graph has it as an output.
    """

    index: int
    operator: Operator
    output: int
    dtypes: tuple[str, str]
    elements: int
    figures: Figures
    is_output: bool

    @property
    def departs(self) -> bool:
        """Whether msprobe calls it a precision error, by the printed figures. A NaN is none to it."""
        cells = self.figures.printed()
        cosine = float(cells[COSINE])
        over = any(float(cells[name]) > bound for name, bound in GREATEST.items())
        return not math.isnan(cosine) and (cosine < LEAST_COSINE or over)

    def document(self) -> dict[str, Any]:
        """Return the row with its figures as they are, for JSON: None for a figure that is not a number."""
        figures = {
            name: value if value is not None and math.isfinite(value) else None
            for name, value in self.figures.values.items()
            if name != SPREAD
        }
        return {
            "operator": self.operator.name,
            "type": self.operator.type,
            "nodes": [node.node for node in self.operator.nodes],
            "output": self.output,
            "elements": self.elements,
            "figures": figures,
            "departs": self.departs,
        }

    def cells(self) -> list[str]:
        """Return its line of the table. The shape is that of the flat tensor, as msprobe has it."""
        operator = self.operator
        return [
            *(str(self.index), operator.type, operator.name, self.dtypes[0], NONE, operator.ground_truth),
            *(self.dtypes[1], f"{operator.name}:output:{self.output}", f"[{self.elements}]"),
            *self.figures.printed().values(),
            *(self.figures.reason, _YES_NO[False], _YES_NO[self.is_output], _YES_NO[self.departs]),
        ]


def _input_cells(index: int, name: str) -> list[str]:
    """Return the line of an input of the graph, of which there is no dump."""
    reason = f'[{name}] There is no dump file for my output operator "{name}". The type is {DATA}.'
    nothing = [NONE] * (HEADER.index("CompareFailReason") - HEADER.index(GROUND_TRUTH) - 1)
    return [str(index), DATA, name, NONE, NONE, name, *nothing, reason, *[_YES_NO[False]] * 3]


def write(path: Path, inputs: Sequence[str], rows: Sequence[Row]) -> None:
    """Write the table.

    Args:
        path: the file to write.
        inputs: the names of the graph's inputs, which come first.
        rows: the rows, in the order of their operators.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(_input_cells(place, name) for place, name in enumerate(inputs))
        writer.writerows(row.cells() for row in rows)


@dataclass(frozen=True)
class TheirRow:
    """A row of a table that msprobe wrote.

    Args:
        type: the type of the operator.
        operator: its name in the offline model.
        nodes: the nodes of the graph that it is compared with; ``*`` for none.
        tensor: the tensor, as ``OPERATOR:output:NUMBER``; ``NaN`` if the operator has no dump.
        cosine: the cosine similarity; None if there is none.
        relative_l2: the relative Euclidean distance; None if there is none.
    """

    type: str
    operator: str
    nodes: tuple[str, ...]
    tensor: str
    cosine: float | None
    relative_l2: float | None

    @property
    def output(self) -> int | None:
        """The number of the output; None for an input, and for an operator without a dump."""
        operator, _, number = self.tensor.rpartition(":output:")
        return int(number) if operator and number.isdigit() else None


def read(path: Path) -> list[TheirRow]:
    """Read a table that msprobe wrote, in any of its modes for offline models.

    Raises:
        InputError: it is not such a table.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise _no_table(path, f"{path.stat().st_size / 1e6:.0f} MB", "at most 100 MB")
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise _no_table(path, f"no text of a table: {error}") from error
    except OSError as error:
        raise _no_table(path, error.strerror or "an error") from error
    if not lines:
        raise _no_table(path, "an empty file")
    header, *rest = lines
    missing = [name for name in _NEEDED if name not in header]
    if missing:
        raise _no_table(path, f"no column {', '.join(missing)}")
    if not rest:
        raise _no_table(path, "a header alone")
    places = {name: header.index(name) for name in _NEEDED}
    return [_read_row(path, line, places, number) for number, line in enumerate(rest, start=2)]


def _read_row(path: Path, line: Sequence[str], places: Mapping[str, int], number: int) -> TheirRow:
    try:
        cells = {name: line[place].strip() for name, place in places.items()}
        cosine, relative_l2 = (_number(cells[name]) for name in (COSINE, RELATIVE_L2))
    except (IndexError, ValueError) as error:
        raise _no_table(path, f"line {number}: {','.join(line)[:80]}") from error
    nodes = tuple(cells[GROUND_TRUTH].split(","))
    return TheirRow(cells[TYPE], cells["NPUDump"], nodes, cells[TENSOR], cosine, relative_l2)


def _number(cell: str) -> float | None:
    value = float(cell)
    return value if math.isfinite(value) else None


def _no_table(path: Path, got: str, expected: str = "") -> InputError:
    return InputError(
        f"{path} is not a table of msprobe",
        got=got,
        expected=expected or "the columns of its result_TIME.csv, and a row or more",
        fix="give the result_TIME.csv that `msprobe compare -m offline_model` or `-m offline_data` wrote",
    )


def outputs_of(rows: Iterable[TheirRow]) -> list[tuple[TheirRow, int]]:
    """Return the rows of outputs, each with the number of the output.

    Rows of inputs repeat the figures of the operator before, and an operator without a dump has no figures.
    """
    return [(row, row.output) for row in rows if row.output is not None]
