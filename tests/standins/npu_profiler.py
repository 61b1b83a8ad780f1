"""torch_npu.profiler's stand-in: it writes the folder and the table that the documents describe.

Source: "Ascend PyTorch profiler user guide" (repository Ascend/pytorch, docs/en/ascend_pytorch_profiler) for
the calls, the name of the folder and the limits of its path; "Profile data file references" (repository
Ascend/msprof) for the columns of kernel_details.csv.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

COLUMNS = (
    *("Step Id", "Device_id", "Model ID", "Task ID", "Stream ID", "Name", "Type", "OP State"),
    *("Accelerator Core", "Start Time(us)", "Duration(us)", "Wait Time(us)", "Block Num", "HF32 Eligible"),
    *("Input Shapes", "Input Data Types", "Input Formats", "Output Shapes", "Output Data Types"),
)
PASS = (
    ("Conv2D", "AI_CORE", "FLOAT;FLOAT;FLOAT", "YES", 40.0),
    ("MatMulV2", "AI_CORE", "FLOAT;FLOAT", "NO", 30.0),
    ("MatMulV2", "AI_CORE", "FLOAT;FLOAT", "NO", 20.0),
    ("GeluV2", "AI_VECTOR_CORE", "FLOAT", "NO", 10.0),
)
"""The kernels of one forward pass: operator, core, types, HF32, microseconds."""


class ProfilerActivity(Enum):
    CPU, NPU = range(2)


class ProfilerLevel(Enum):
    Level0, Level1 = range(2)


class AiCMetrics(Enum):
    PipeUtilization = 0


@dataclass(frozen=True)
class _ExperimentalConfig:
    profiler_level: ProfilerLevel
    aic_metrics: AiCMetrics


def tensorboard_trace_handler(dir_name: str) -> Callable[[int], None]:
    if re.search(r"[^A-Za-z0-9_/.-]", dir_name):
        raise ValueError(f"the path [{dir_name}] has characters that are not allowed")

    def write(passes: int) -> None:
        place = Path(dir_name) / "host_1_20261130_ascend_pt" / "ASCEND_PROFILER_OUTPUT"
        place.mkdir(parents=True)
        (place / "trace_view.json").write_text("[]")
        with (place / "kernel_details.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            for _ in range(passes):
                for operator, core, types, hf32, time in PASS:
                    writer.writerow(
                        {
                            "Type": operator,
                            "Accelerator Core": core,
                            "Duration(us)": f"{time}\t",
                            "HF32 Eligible": hf32,
                            "Input Data Types": types,
                        }
                    )

    return write


class profile:
    """Counts the forward passes by :attr:`ran`, which the test's forward pass increases."""

    ran = 0

    def __init__(
        self, *, activities: Any, on_trace_ready: Any, record_shapes: bool, experimental_config: Any
    ) -> None:
        assert {*activities} == {*ProfilerActivity} and record_shapes
        assert experimental_config.profiler_level is ProfilerLevel.Level1
        self._ready = on_trace_ready

    def __enter__(self) -> profile:
        self._before = profile.ran
        return self

    def __exit__(self, *_: object) -> None:
        self._ready(profile.ran - self._before)
