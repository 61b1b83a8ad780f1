"""What every operator of a forward pass costs on an NPU, by the profiler of torch_npu.

Sources: torch_npu's documentation, ``ascend_pytorch_profiler_user_guide.md`` (repository Ascend/pytorch), for
the calls; the file ``kernel_details.csv`` and its columns in ``profile_data_file_references.md`` (repository
Ascend/msprof). Columns depend on the version, and are found by their names.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vconv.backends import import_torch_npu
from vconv.errors import EngineError

WARM_UPS, PROFILED = 2, 3
"""Forward passes before the profile, and in it."""
KERNELS = "kernel_details.csv"
_TYPE, _DURATION = "Type", "Duration(us)"
_NUMBER = re.compile(r"\d+(\.\d*)?([eE][+-]?\d+)?", re.ASCII)
_SHOWN = 40
"""Greatest number of characters of a cell in an error text."""
_KEY = (_TYPE, "Accelerator Core", "Input Data Types", "HF32 Eligible")


@dataclass(frozen=True)
class OperatorCost:
    """What the kernels of one operator cost, of one kind of core and of operands.

    Args:
        operator: its name in CANN, such as ``Conv2D`` or ``MatMulV2``.
        core: the unit that ran it, such as ``AI_CORE`` or ``AI_CPU``; empty if the profile does not say.
        operands: the types of its inputs; empty if the profile does not say.
        hf32: whether it may compute in HF32; empty if the profile does not say.
        count: how many kernels ran in one forward pass, on average.
        microseconds: how long they took in one forward pass, on average.
        share: their part of the time of all kernels.
    """

    operator: str
    core: str
    operands: str
    hf32: str
    count: float
    microseconds: float
    share: float

    @property
    def told(self) -> str:
        """The operator in words."""
        notes = [
            note for note in (self.core, self.operands, f"HF32 {self.hf32}" if self.hf32 else "") if note
        ]
        time = f"{self.microseconds:.0f} us, {100 * self.share:.1f} %"
        where = f" ({', '.join(notes)})" if notes else ""
        return f"{self.operator}{where}: {self.count:g} kernels, {time}"


def record(
    forward: Callable[[], object], synchronise: Callable[[], object], folder: Path
) -> list[OperatorCost]:
    """Profile a forward pass, and keep the trace.

    Args:
        forward: runs the forward pass.
        synchronise: waits for the device.
        folder: an empty folder for the trace and the tables of torch_npu.

    Returns:
        The cost of every operator, the greatest first.

    Raises:
        EngineError: the profiler wrote no table of kernels, or another one than it documents.
    """
    profiler = import_torch_npu().profiler
    for _ in range(WARM_UPS):
        forward()
    synchronise()
    with profiler.profile(
        activities=[profiler.ProfilerActivity.CPU, profiler.ProfilerActivity.NPU],
        on_trace_ready=profiler.tensorboard_trace_handler(str(folder)),
        record_shapes=True,
        experimental_config=profiler._ExperimentalConfig(
            profiler_level=profiler.ProfilerLevel.Level1,
            aic_metrics=profiler.AiCMetrics.PipeUtilization,
        ),
    ):
        for _ in range(PROFILED):
            forward()
        synchronise()
    return summary(folder)


def summary(folder: Path) -> list[OperatorCost]:
    """Add up the kernels in the table that the profiler left in a folder; the greatest cost comes first.

    Raises:
        EngineError: there is no such table, it lacks a column, or a duration is no number.
    """
    tables = sorted(folder.rglob(KERNELS))
    if not tables:
        raise EngineError(
            "torch_npu's profiler wrote no table of kernels",
            got=f"no {KERNELS} below {folder}",
            expected=f"ASCEND_PROFILER_OUTPUT/{KERNELS}",
            fix="see torch_npu's log; its profiler does not run as root, and needs a path of plain letters",
        )
    with tables[-1].open(newline="", encoding="utf-8") as file:
        return costs(csv.DictReader(file), tables[-1])


def costs(rows: Iterable[Mapping[str, Any]], table: Path) -> list[OperatorCost]:
    """Add up the rows of a table of kernels by operator, core, types of the operands, and HF32.

    Raises:
        EngineError: the table lacks a column, or a duration is no number.
    """
    times: dict[tuple[str, str, str, str], list[float]] = {}
    for row in rows:
        if not row.get(_TYPE) or not row.get(_DURATION):
            raise _unexpected(f"{table.name} with the columns {', '.join(map(str, row))}"[:300])
        operator, core, operands, hf32 = (str(row.get(name) or "").strip() for name in _KEY)
        times.setdefault((operator, core, operands, hf32), []).append(_microseconds(row, table))
    whole = sum(map(sum, times.values())) or 1.0
    found = [
        OperatorCost(*key, len(values) / PROFILED, sum(values) / PROFILED, sum(values) / whole)
        for key, values in times.items()
    ]
    return sorted(found, key=lambda one: (-one.microseconds, one.operator))


def _microseconds(row: Mapping[str, Any], table: Path) -> float:
    """Return how long a kernel took.

    Raises:
        EngineError: the table has something else than a number there.
    """
    text = str(row[_DURATION]).strip()
    if not _NUMBER.fullmatch(text):
        raise _unexpected(f"{table.name} with {text[:_SHOWN]!r} in the column {_DURATION}")
    return float(text)


def _unexpected(got: str) -> EngineError:
    return EngineError(
        "torch_npu's profiler wrote another table of kernels than it documents",
        got=got,
        expected=f"{_TYPE} and {_DURATION}, a number like 12.5",
        fix="report this version of torch_npu",
    )


def folder_name(device: str, variant: str) -> str:
    """Return a name of letters, digits and ``_``, which is all that the profiler takes in a path."""
    return re.sub(r"[^A-Za-z0-9_]", "_", f"{device}_{variant}")
