"""Offline models for Ascend NPUs, compiled by ATC, CANN's own compiler, from a graph that holds its weights.

Sources: Huawei's "ATC Tool User Guide", below https://www.hiascend.com/document/detail/, a page an option:

- --precision_mode_v2: en/canncommercial/850/devaids/atctool/atlasatcparam_16_0069.html. Its default is
  ``fp16``, so that the precision must always be stated.
- --op_precision_mode: en/canncommercial/850/devaids/atctool/atlasatcparam_16_0070.html
- --allow_hf32: zh/canncommercial/900/devaids/atctool/atlasatcparam_16_0077.html. Convolutions are in HF32 by
  default; this option is not supported yet, so that --op_precision_mode turns it off.
- --keep_dtype: zh/CANNCommunityEdition/910/devaids/atctool/atlasatcparam_16_0074.html
- --dynamic_batch_size: zh/canncommercial/800/devaids/devtools/atc/atlasatcparam_16_0018.html
- --output_type: zh/canncommercial/900/devaids/atctool/atlasatcparam_16_0030.html
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vconv.errors import EngineError, InputError, UnknownNameError
from vconv.types import CHANNELS, GRAPHS, INPUT

ATC = "atc"
FOLDER = "om"
"""Where an artifact keeps what belongs to its offline model."""
GRAPH_FILE, MODEL_FILE, SCRIPT_FILE = "model.onnx", "model.om", "atc.sh"
KEEP_DTYPE_FILE, OP_PRECISION_FILE = "keep_dtype.cfg", "op_precision.ini"
LEAST_GEARS, GREATEST_GEARS, GREATEST_GEAR = 2, 100, 1024
"""How many gears ATC takes, and how great one may be: ATC takes 2048, but the dynamic graph is not traced for
as many."""
_SOC = re.compile(r"Ascend\w+")
_HAS_HF32 = re.compile(r"Ascend910(B\d|_93)")
"""Atlas A2 and A3, the products that have HF32 and take the setting against it."""
_ERROR_CODE = re.compile(r"\bE[A-Z0-9]\d{4}: ?.*")
"""How a line begins that says what is wrong: ``E10054: ...``, ``EZ3003: ...``."""
_SHOWN = 300
"""Characters of such a line that an error shows."""


@dataclass(frozen=True)
class OfflinePrecision:
    """One value of ``--precision_mode_v2``.

    Args:
        name: as ATC calls it.
        variant: what its offline model is called here.
        limits: the precision whose limits it is held to.
        keeps: types of operators, in Ascend's own naming, that keep the graph's float32.
    """

    name: str
    variant: str
    limits: Literal["fp32", "fp16"]
    keeps: tuple[str, ...] = ()


SENSITIVE = ("LayerNorm", "SoftmaxV2", "Erf")
"""Types of operators that stay in float32 where others go to float16.

LayerNorm sums the squares of a token's channels: from a norm of 256 on they are beyond float16, whose
greatest number is 65504, and large vision transformers have outlying tokens of such norms (arXiv 2309.16588).
SoftmaxV2 sums a whole row of exponentials. Erf is what makes a GELU exact; float16 at 1 is off by as much as
the tanh form is. It pays: with matrix products and convolutions alone in float16, dinov3-vits16 with
synthetic weights is 8.7e-4 from its reference, as a whole in float16 1.5e-3. In CANN's parser ONNX's Softmax
becomes a SoftmaxV2, and its LayerNormalization a LayerNorm among others, under a new name (repository
hicann/ops-nn, the ONNX plugins of both): so types are listed, not names.
"""

OFFLINE_PRECISIONS: Mapping[str, OfflinePrecision] = {
    precision.name: precision
    for precision in (
        OfflinePrecision("origin", "om-fp32", "fp32"),
        OfflinePrecision("fp16", "om-fp16", "fp16", SENSITIVE),
        OfflinePrecision("mixed_float16", "om-mixed-fp16", "fp16", SENSITIVE),
        OfflinePrecision("cube_fp16in_fp32out", "om-cube-fp16", "fp16"),
    )
}
"""What can be asked for. ``origin`` ignores a list of what to keep, and the last keeps all but products."""
DEFAULT_OFFLINE_PRECISION = "origin"


@dataclass(frozen=True)
class CompileOrder:
    """What is to be compiled. Make it with :meth:`of`, which checks it.

    Args:
        soc: the processor, as ``--soc_version`` has it: ``Ascend`` and the name that ``npu-smi info`` shows.
        precision: of the computation.
        gears: batches between which the model switches; none for the static graph's batch.
    """

    soc: str
    precision: OfflinePrecision
    gears: tuple[int, ...] = ()

    @classmethod
    def of(
        cls, soc: str, precision: str = DEFAULT_OFFLINE_PRECISION, gears: Sequence[int] = ()
    ) -> CompileOrder:
        """Check what was asked for.

        Raises:
            UnknownNameError: there is no such precision.
            InputError: the processor is none, or the gears are not what ATC takes.
        """
        if not _SOC.fullmatch(soc):
            raise InputError(
                "--soc is no processor's name",
                got=repr(soc),
                expected="a name such as Ascend910B4 or Ascend310P3",
                fix="put Ascend before the name that `npu-smi info` shows",
            )
        if precision not in OFFLINE_PRECISIONS:
            raise UnknownNameError("--om-precision", precision, OFFLINE_PRECISIONS, fix="choose one of those")
        ordered = tuple(sorted(set(gears)))
        fits = (
            LEAST_GEARS <= len(ordered) <= GREATEST_GEARS and 1 <= ordered[0] <= ordered[-1] <= GREATEST_GEAR
        )
        if gears and not fits:
            raise InputError(
                "--gears cannot be used",
                got=",".join(map(str, gears)),
                expected=f"{LEAST_GEARS} to {GREATEST_GEARS} different batches, each 1 to {GREATEST_GEAR}",
                fix="give several, such as 1,2,4,8, or leave --gears out and use --batch",
            )
        return cls(soc, OFFLINE_PRECISIONS[precision], ordered)

    @property
    def file(self) -> str:
        """The offline model's path in its artifact."""
        return f"{FOLDER}/{MODEL_FILE}"

    @property
    def source(self) -> str:
        """The graph of the artifact that it is compiled from: for gears the one of any batch."""
        return next(graph.path for graph in GRAPHS if graph.for_npu == (not self.gears))

    def settings(self) -> dict[str, str]:
        """Return the files that ATC's options name, by name."""
        files = {}
        if self.precision.keeps:
            files[KEEP_DTYPE_FILE] = "".join(f"OpType::{kind}\n" for kind in self.precision.keeps)
        if self.precision.limits == "fp32" and _HAS_HF32.match(self.soc):
            files[OP_PRECISION_FILE] = "[ByOpType]\nConv2D=enable_float_32_execution\n"
        return files

    def command(self, size: tuple[int, int], batch: int) -> tuple[str, ...]:
        """Return the command, for the folder that holds the graph and the settings.

        Args:
            size: (height, width) of the images.
            batch: of the static graph.
        """
        settings = self.settings()
        shape = (-1 if self.gears else batch, CHANNELS, *size)
        options = {
            "framework": "5",  # ONNX
            "model": GRAPH_FILE,
            "output": Path(MODEL_FILE).stem,  # ATC adds the ending
            "soc_version": self.soc,
            "input_format": "NCHW",
            "input_shape": f"{INPUT}:{','.join(map(str, shape))}",
            "dynamic_batch_size": ",".join(map(str, self.gears)),
            "precision_mode_v2": self.precision.name,
            "keep_dtype": KEEP_DTYPE_FILE if KEEP_DTYPE_FILE in settings else "",
            "op_precision_mode": OP_PRECISION_FILE if OP_PRECISION_FILE in settings else "",
            "output_type": "FP32",
            "log": "error",
        }
        return (ATC, *(f"--{name}={value}" for name, value in options.items() if value))


def script(command: Sequence[str], settings: Sequence[str]) -> str:
    """Write a command down as a shell script for a machine that has ATC.

    It works in a hidden folder of the artifact, which it removes: ATC leaves files of its own wherever it
    runs, and what fails leaves no offline model.

    Args:
        command: as :meth:`CompileOrder.command` returns it.
        settings: names of the files that it needs beside the graph.
    """
    needed = " ".join(f'"$here"/{shlex.quote(name)}' for name in (GRAPH_FILE, *settings))
    return "\n".join(
        [
            "#!/bin/sh",
            f"# Compiles {GRAPH_FILE} into {MODEL_FILE}, beside this script. Needs atc of CANN on PATH.",
            "set -eu",
            f"if ! command -v {ATC} > /dev/null; then",
            f"  echo '{ATC} is not on PATH: source set_env.sh of CANN first' >&2",
            "  exit 127",
            "fi",
            'here=$(cd "$(dirname "$0")" && pwd)',
            'work=$(mktemp -d "$here/../.atc.XXXXXX")',
            "trap 'rm -rf \"$work\"' EXIT",
            "trap 'exit 130' HUP INT TERM",
            'cd "$work"',
            f"ln -s {needed} .",
            " \\\n  ".join(map(shlex.quote, command)),
            f'mv {MODEL_FILE} "$here"/{MODEL_FILE}',
            "",
        ]
    )


def compiler() -> str | None:
    """Return where ATC is; None where it is not installed."""
    return shutil.which(ATC)


def compile_model(place: Path, command: Sequence[str]) -> None:
    """Run ATC.

    Args:
        place: a folder with what the command names; it gets the offline model, and whatever ATC leaves there.
        command: what to run.

    Raises:
        EngineError: it fails, or leaves no offline model.
    """
    done = subprocess.run(
        command,
        cwd=place,
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
            got=first_error(done.stdout) or f"exit status {done.returncode}, and last {_last(done.stdout)!r}",
            expected=f"a {MODEL_FILE}",
            fix="mend that, or take atc off PATH to get the graph and the command instead; nothing was kept",
        )


def first_error(log: str) -> str:
    """Return the first error of what ATC printed; empty where it names none."""
    lines = [line.strip() for line in log.splitlines()]
    found = [match[0] for line in lines if (match := _ERROR_CODE.search(line))]
    found += [line for line in lines if "error" in line.lower()]
    return (found or [""])[0][:_SHOWN]


def _last(log: str) -> str:
    return (log.strip().splitlines() or [""])[-1][:_SHOWN]
