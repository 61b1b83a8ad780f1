"""Offline models for Ascend NPUs: CANN's compiler ATC makes them from a graph with embedded weights.

Sources: Huawei's "ATC Tool User Guide", below https://www.hiascend.com/document/detail/, one page per option:

- --precision_mode_v2: en/canncommercial/850/devaids/atctool/atlasatcparam_16_0069.html. Its default is
  ``fp16``, so that the command must always state the precision.
- --op_precision_mode: en/canncommercial/850/devaids/atctool/atlasatcparam_16_0070.html
- --allow_hf32: zh/canncommercial/900/devaids/atctool/atlasatcparam_16_0077.html. ATC computes
  convolutions in HF32 by default. It does not support this option yet, so that --op_precision_mode turns HF32
  off.
- --keep_dtype: zh/CANNCommunityEdition/910/devaids/atctool/atlasatcparam_16_0074.html
- --dynamic_batch_size: zh/canncommercial/800/devaids/devtools/atc/atlasatcparam_16_0018.html
- --dynamic_image_size: repository github.com/mirror-cann/ge,
  ``docs/zh/user_guides/atc_tools/CLI_options/--dynamic_image_size.md``
- --output_type: zh/canncommercial/900/devaids/atctool/atlasatcparam_16_0030.html
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vconv.convert.ascend import chips
from vconv.convert.ascend.fusions.switch_file import SWITCH_FILE, switch_file
from vconv.convert.ascend.gears import Size, batch_gears, require_one_kind, size_gears, told
from vconv.convert.ascend.routes import ONNX_ROUTE, Route
from vconv.errors import EngineError, InputError, UnknownNameError
from vconv.types import CHANNELS, GRAPHS, INPUT

ATC = "atc"
MODEL_FILE, SCRIPT_FILE = "model.om", "atc.sh"
KEEP_DTYPE_FILE, OP_PRECISION_FILE = "keep_dtype.cfg", "op_precision.ini"
_DESCRIPTIONS = ("input_format", "input_shape", "output_type")
"""The options that describe the input and the outputs of a graph."""
_ERROR_CODE = re.compile(r"\bE[A-Z0-9]\d{4}: ?.*")
"""The beginning of a line with an error of ATC: ``E10054: ...``, ``EZ3003: ...``."""
_SHOWN = 300
"""Greatest number of characters of such a line in an error text."""


@dataclass(frozen=True)
class OfflinePrecision:
    """One value of ``--precision_mode_v2``.

    Args:
        name: its name in ATC.
        ending: the end of its variant's name in vconv.
        limits: the precision whose limits validation applies.
        keeps: whether the processor's sensitive operators stay in float32: see :data:`chips.SENSITIVE`.
    """

    name: str
    ending: str
    limits: Literal["fp32", "fp16"]
    keeps: bool = False


OFFLINE_PRECISIONS: Mapping[str, OfflinePrecision] = {
    precision.name: precision
    for precision in (
        OfflinePrecision("origin", "fp32", "fp32"),
        OfflinePrecision("fp16", "fp16", "fp16", keeps=True),
        OfflinePrecision("mixed_float16", "mixed-fp16", "fp16", keeps=True),
        OfflinePrecision("cube_fp16in_fp32out", "cube-fp16", "fp16"),
    )
}
"""Every precision, by name.

``origin`` ignores a list of operators to keep. ``cube_fp16in_fp32out`` needs no list, because it converts
only the operands of products.
"""


@dataclass(frozen=True)
class CompileOrder:
    """The settings of a compilation. Create it with :meth:`of`, which checks the values.

    Args:
        soc: the name of the processor, as for ``--soc_version``.
        precision: the precision of the computation.
        gears: the batch sizes that the model supports; empty for the batch of the static graph.
        gears_size: the (height, width) that the model supports; empty for the size of the static graph.
        route: the way from the network to the offline model.
    """

    soc: str
    precision: OfflinePrecision
    gears: tuple[int, ...] = ()
    gears_size: tuple[Size, ...] = ()
    route: Route = ONNX_ROUTE

    @classmethod
    def of(
        cls,
        soc: str,
        precision: str | None = None,
        gears: Sequence[int] = (),
        gears_size: Sequence[Size] = (),
        route: Route = ONNX_ROUTE,
    ) -> CompileOrder:
        """Check the requested settings.

        Args:
            soc: the name of the processor.
            precision: the precision; by default the one that is nearest to float32 on this processor.
            gears: the batch sizes that the model supports.
            gears_size: the (height, width) that the model supports.
            route: the way from the network to the offline model.

        Raises:
            UnknownNameError: there is no such precision.
            InputError: no processor has this name, it cannot compute in this precision, or ATC does not
                support the gears, or is not known to support them on this route.
        """
        if precision is not None and precision not in OFFLINE_PRECISIONS:
            raise UnknownNameError("--om-precision", precision, OFFLINE_PRECISIONS, fix="choose one of those")
        chosen = chips.chosen_precision(soc, precision)
        if (gears or gears_size) and not route.gears:
            raise InputError(
                f"--gears{'-size' * bool(gears_size)} is not used with --format {route.name}",
                got="both",
                expected="one batch and one size: the manual of CANN 8.0 says that ATC takes no gears there, "
                "and no later one says that it does",
                fix=f"leave it out, or use --format {ONNX_ROUTE.name}",
            )
        require_one_kind(gears, gears_size)
        chip = chips.chip_of(soc)
        by_batch, by_size = batch_gears(gears, chip), size_gears(gears_size, chip)
        return cls(soc, OFFLINE_PRECISIONS[chosen], by_batch, by_size, route)

    @property
    def folder(self) -> str:
        """The folder of the artifact with all files of the offline model."""
        return self.route.name

    @property
    def file(self) -> str:
        """The offline model's path in its artifact."""
        return f"{self.folder}/{MODEL_FILE}"

    @property
    def variant(self) -> str:
        """The name of the variant."""
        return f"{self.route.name}-{self.precision.ending}"

    @property
    def source(self) -> str:
        """The graph of the artifact that has the model's input: with gears the dynamic one, else the static.

        ATC compiles this graph; on the route of Ascend IR, torchair traces the same network instead.
        """
        fixed = not self.gears and not self.gears_size
        return next(graph.path for graph in GRAPHS if graph.for_npu == fixed)

    def settings(self, norms: Sequence[str] = ()) -> dict[str, str]:
        """Return the contents of the files that ATC's options refer to, by file name.

        Args:
            norms: the names of the nodes of LayerNorms that are spelled out. No type of operator stands for
                them, so that they are listed one by one where LayerNorms stay in float32.
        """
        chip, files = chips.chip_of(self.soc), {SWITCH_FILE: switch_file()}
        if self.precision.keeps and chip.keeps:
            kinds = [one for kind in chip.keeps for one in self.route.kinds.get(kind, (kind,))]
            lines = [*(f"OpType::{kind}" for kind in kinds), *norms]
            files[KEEP_DTYPE_FILE] = "".join(f"{line}\n" for line in lines)
        if self.precision.limits == "fp32" and chip.hf32:
            files[OP_PRECISION_FILE] = "[ByOpType]\nConv2D=enable_float_32_execution\n"
        return files

    def command(self, size: tuple[int, int], batch: int) -> tuple[str, ...]:
        """Return the command to run in the folder that holds the graph and the settings.

        Args:
            size: (height, width) of the images.
            batch: the batch size of the static graph, and of a model with gears by size.
        """
        settings = self.settings()
        sides = (-1, -1) if self.gears_size else size
        shape = (-1 if self.gears else batch, CHANNELS, *sides)
        options = {
            "framework": self.route.framework,
            "model": self.route.graph,
            "output": Path(MODEL_FILE).stem,  # ATC adds the ending
            "soc_version": self.soc,
            "input_format": "NCHW",
            "input_shape": f"{INPUT}:{','.join(map(str, shape))}",
            "dynamic_batch_size": ",".join(map(str, self.gears)),
            "dynamic_image_size": told(self.gears_size),
            "precision_mode_v2": self.precision.name,
            "keep_dtype": KEEP_DTYPE_FILE if KEEP_DTYPE_FILE in settings else "",
            "op_precision_mode": OP_PRECISION_FILE if OP_PRECISION_FILE in settings else "",
            "fusion_switch_file": SWITCH_FILE,
            "output_type": "FP32",
            "log": "error",
        }
        ignored = () if self.route.described else _DESCRIPTIONS
        given = {name: value for name, value in options.items() if value and name not in ignored}
        return (ATC, *(f"--{name}={value}" for name, value in given.items()))


def compiler() -> str | None:
    """Return the path of ATC; None if ATC is not on PATH."""
    return shutil.which(ATC)


def compile_model(place: Path, command: Sequence[str]) -> None:
    """Run ATC.

    Args:
        place: a folder with the files that the command names; ATC writes the offline model and other files
            there.
        command: the command to run.

    Raises:
        EngineError: ATC fails, or writes no offline model.
    """
    done = subprocess.run(
        command,
        cwd=place,
        env={name: value for name, value in os.environ.items() if name != "ASCEND_WORK_PATH"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode or not (place / MODEL_FILE).is_file():
        raise EngineError(
            "atc did not compile the graph",
            got=first_error(done.stdout)
            or f"exit status {done.returncode}, last line {_last(done.stdout)!r}",
            expected=f"a {MODEL_FILE}",
            fix="correct this error, or remove atc from PATH to get the graph and a script; no file was kept",
        )


def first_error(log: str) -> str:
    """Return the first error in the output of ATC; empty if it contains none."""
    lines = [line.strip() for line in log.splitlines()]
    found = [match[0] for line in lines if (match := _ERROR_CODE.search(line))]
    found += [line for line in lines if "error" in line.lower()]
    return (found or [""])[0][:_SHOWN]


def _last(log: str) -> str:
    return (log.strip().splitlines() or [""])[-1][:_SHOWN]
