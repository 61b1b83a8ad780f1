"""Ascend's processors by family: what their matrix unit, the cube, computes in, and what an overflow gives.

All rows are from documents; no row was measured on a device. Sources, by the short names that the rows use:

- ``platform``: repository github.com/hicann/runtime, ``src/platform/platform_config/cann/*.ini``, one file
  for each processor: its names, and the operand types of the cube in ``Intrinsic_mmad``. One file of each
  family was read (910ProA, 910B2, 910_9391, 950PR_9599, 310P3, 310B1).
- ``operators``: repository github.com/hicann/docs,
  ``docs/zh/ops-lib/ascendir-ops-list/<chip>_ops_list/ops/<operator>.md``: the types of each operator.
- ``aclnnMatmul``: repository github.com/hicann/ops-nn, ``matmul/mat_mul_v3/docs/aclnnMatmul.md``.
- ``ATC``: repository github.com/mirror-cann/ge, ``docs/zh/user_guides/atc_tools/CLI_options/--NAME.md``, the
  pages ``--soc_version``, ``--allow_hf32``, ``--precision_mode_v2`` and ``--dynamic_batch_size``.
- ``overflow``: repository github.com/Ascend/pytorch,
  ``docs/zh/environment_variable_reference/INF_NAN_MODE_ENABLE.md``, and aclrtFloatOverflowMode,
  https://www.hiascend.com/document/detail/en/CANNCommunityEdition/910/, page aclcppdevg_03_1389.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Literal

from vconv.errors import InputError

ORIGIN, CUBE_FP16 = "origin", "cube_fp16in_fp32out"
"""Two values of ATC's --precision_mode_v2: the graph's types, and float16 products with float32 results."""
PRECISIONS = (ORIGIN, "fp16", "mixed_float16", CUBE_FP16)
"""The values of --om-precision: see :data:`vconv.convert.ascend.atc.OFFLINE_PRECISIONS`."""
HOW_NAMED = (
    "give Ascend followed by the Name that `npu-smi info` shows; for an A3 or a 950, Chip Name, _ and NPU "
    "Name that `npu-smi info -t board -i ID` shows (for an A3 with -c CHIP)"
)
"""How to find the name of a processor (ATC, --soc_version)."""
SENSITIVE = ("LayerNorm", "SoftmaxV2", "Erf")
"""Operator types that stay in float32 when other operators are converted to float16.

LayerNorm sums the squares of a token's channels. If the norm of the token is 256 or more, this sum exceeds
65504, the greatest float16 number. Large vision transformers have outlier tokens with such norms (arXiv
2309.16588). SoftmaxV2 sums a whole row of exponentials. Erf makes the GELU exact, and the rounding of float16
near 1 is as large as the error of the tanh form. ``benchmarks/results/limits.json`` has what float16 costs
dinov3-vits16 with synthetic weights, as vector relative errors against the reference: 1.3e-3 where only
matrix products and convolutions take float16 operands (simulated), and 2.4e-3 where all operators are in
float16 (PyTorch on a CPU). CANN's parser turns ONNX's Softmax into SoftmaxV2, and LayerNormalization into
LayerNorm and other operators, and renames the nodes (repository hicann/ops-nn, the ONNX plugins of both). So
this list holds types instead of node names.
"""
_SHOWN = 3
"""How many families an error about an unknown name lists."""


@dataclass(frozen=True)
class Chip:
    """One family of processors. None stands for what no document says.

    Args:
        family: its short name.
        product: its name in Huawei's documents.
        pattern: a regular expression for the names that ATC's --soc_version takes.
        names: the names in CANN's platform files. A new processor of the family has another one.
        cube: the operand types of the cube (platform).
        hf32: whether HF32 exists, in which ATC computes float32 convolutions by default (ATC).
        fp32_convolutions: whether the operator Conv2D has a float32 form on the AI core (operators).
        fp32_products: whether matrix products have one (operators, aclnnMatmul).
        overflow: what an overflow gives by default: ``saturates`` for the greatest number of the type, and 0
            in place of NaN; ``inf`` for Inf and NaN (overflow).
        overflow_is_set: whether the other one can be chosen (overflow).
        refused: the values of --om-precision that the family cannot compute in, each with the reason.
        doubtful: the values that may not work there, each with the reason.
        keeps: operator types that stay in float32 under ``fp16`` and ``mixed_float16``.
        greatest_gears: the greatest number of gears of a model (ATC).
    """

    family: str
    product: str
    pattern: str
    names: tuple[str, ...]
    cube: tuple[str, ...] | None
    hf32: bool | None
    fp32_convolutions: bool | None
    fp32_products: bool | None
    overflow: Literal["saturates", "inf"] | None
    overflow_is_set: bool | None
    refused: Mapping[str, str] = field(default_factory=dict)
    doubtful: Mapping[str, str] = field(default_factory=dict)
    keeps: tuple[str, ...] = SENSITIVE
    greatest_gears: int = 100

    @property
    def default_precision(self) -> str:
        """The value of --om-precision that is nearest to float32."""
        return ORIGIN if self.fp32_convolutions and self.fp32_products else CUBE_FP16


_FP16_CONV2D = (
    "the documents list Conv2D there for float16 only; by the rule of this value, ATC then refuses the graph "
    "or leaves the convolution to the AI CPU"
)
_950PR = ("9579", "957b", "957bx", "957c", "957d", "9589", "958a", "958b", "9599", "950z")
_950DT = (
    *("9571", "9572", "9573", "9574", "9575", "9576", "9577", "9578", "9581", "9582", "9583", "9584", "9585"),
    *("9586", "9587", "9588", "9591", "9592", "9595", "9596", "95A1", "95A2", "950x", "950y"),
)
_FLOAT_CUBE = ("int8", "fp16", "bf16", "fp32", "hf32")

CHIPS: Mapping[str, Chip] = {
    chip.family: chip
    for chip in (
        Chip(
            family="910",
            product="Atlas training series, the first generation",
            pattern=r"Ascend910(A|B|Pro[AB]|PremiumA)",
            names=("Ascend910A", "Ascend910B", "Ascend910ProA", "Ascend910ProB", "Ascend910PremiumA"),
            cube=("int8", "fp16"),
            hf32=False,
            fp32_convolutions=False,
            fp32_products=False,
            overflow="saturates",
            overflow_is_set=False,
            refused={ORIGIN: _FP16_CONV2D},
        ),
        Chip(
            family="910B",
            product="Atlas A2",
            pattern=r"Ascend910B\d\w*(-\d+)?",
            names=tuple(f"Ascend910B{end}" for end in ("1", "2", "2C", "3", "4", "4-1")),
            cube=_FLOAT_CUBE,
            hf32=True,
            fp32_convolutions=True,
            fp32_products=True,
            overflow="inf",
            overflow_is_set=True,
        ),
        Chip(
            family="910_93",
            product="Atlas A3",
            pattern=r"Ascend910_93\w+",
            names=tuple(f"Ascend910_{end}" for end in ("9362", "9372", "9381", "9382", "9391", "9392")),
            cube=_FLOAT_CUBE,
            hf32=True,
            fp32_convolutions=True,
            fp32_products=True,
            overflow="inf",
            overflow_is_set=True,
        ),
        Chip(
            family="950",
            product="Ascend 950PR and 950DT, in older documents 910_95",
            pattern=r"Ascend950(PR|DT)_\w+|Ascend910_95\w+",
            names=(
                *(f"Ascend950PR_{end}" for end in _950PR),
                *(f"Ascend950DT_{end}" for end in _950DT),
            ),
            cube=(*_FLOAT_CUBE, "fp8", "hif8", "fp4"),
            hf32=True,
            fp32_convolutions=True,
            fp32_products=True,
            overflow="inf",
            overflow_is_set=False,  # TensorFlow's adapter says that both can be chosen
            greatest_gears=256,
        ),
        Chip(
            family="310P",
            product="Atlas inference series",
            pattern=r"Ascend310P\d\w*",
            names=("Ascend310P1", "Ascend310P3", "Ascend310P5", "Ascend310P7"),
            cube=("int4", "int8", "fp16"),
            hf32=False,
            fp32_convolutions=False,
            fp32_products=False,
            overflow="saturates",
            overflow_is_set=False,
            refused={ORIGIN: _FP16_CONV2D},
        ),
        Chip(
            family="310B",
            product="Atlas 200I/500 A2",
            pattern=r"Ascend310B\d\w*",
            names=("Ascend310B1", "Ascend310B2", "Ascend310B3", "Ascend310B4"),
            cube=("int4", "int8", "fp16", "bf16", "fp32", "hf32"),
            hf32=False,  # its platform file lists HF32 operands, but no document offers HF32 there
            fp32_convolutions=True,
            fp32_products=False,
            overflow="saturates",
            overflow_is_set=False,
            doubtful={
                ORIGIN: "its platform file lists float32 for the cube, and the list of operators a float32 "
                "Conv2D, but matrix products are listed for float16 only: they may run on the AI CPU, slowly",
                CUBE_FP16: "matrix products are listed there with float16 results only: by the rule of this "
                "value, they then give float16",
            },
        ),
        Chip(
            family="310",
            product="Atlas 200 and 300I, in documents up to CANN 6.3 only",
            pattern=r"Ascend310",
            names=("Ascend310",),
            cube=None,
            hf32=None,
            fp32_convolutions=None,
            fp32_products=None,
            overflow=None,
            overflow_is_set=None,
            doubtful=dict.fromkeys(PRECISIONS, "current documents do not list this processor"),
        ),
    )
}
"""Every family, by its short name. ``Ascend910B`` without a digit is of the first generation."""


def chip_of(soc: str) -> Chip:
    """Return the family of a processor.

    Args:
        soc: the name of the processor, as for ATC's --soc_version.

    Raises:
        InputError: no family has such a name.
    """
    found = next((chip for chip in CHIPS.values() if re.fullmatch(chip.pattern, soc, re.ASCII)), None)
    if found is None:
        raise InputError(
            "--soc is not the name of a processor",
            got=repr(soc),
            expected="one such as " + "; ".join(_nearest(soc)),
            fix=HOW_NAMED,
        )
    return found


def _nearest(soc: str) -> list[str]:
    """Describe the families with the names most like a name: ``Ascend910B1, Ascend910B2 (Atlas A2)``."""

    def likeness(name: str) -> tuple[int, float]:
        one, other = soc.casefold(), name.casefold()
        same = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
        return len([*same]), difflib.SequenceMatcher(None, one, other).ratio()

    families = {name: chip.family for chip in CHIPS.values() for name in chip.names}
    like = dict.fromkeys(families[name] for name in sorted(families, key=likeness, reverse=True))
    chips = [CHIPS[family] for family in [*like][:_SHOWN]]
    return [f"{', '.join(chip.names[:2])} ({chip.product})" for chip in chips]


def chosen_precision(soc: str, precision: str | None) -> str:
    """Return the precision of an offline model: the requested one, or the default of its processor.

    Args:
        soc: the name of the processor.
        precision: the requested value of --om-precision; None for the default.

    Raises:
        InputError: no family has such a name, or the processor cannot compute in this precision.
    """
    chip = chip_of(soc)
    chosen = precision or chip.default_precision
    if chosen in chip.refused:
        others = [one for one in PRECISIONS if one not in (*chip.refused, chip.default_precision)]
        raise InputError(
            f"--om-precision {chosen} is not for {soc}",
            got=f"{soc}, of the family {chip.family}: {chip.refused[chosen]}",
            expected=f"{chip.default_precision}, the default there, or {' or '.join(others)}",
            fix=f"give --om-precision {chip.default_precision}, or leave --om-precision out",
        )
    return chosen


def remarks(soc: str, precision: str | None) -> list[str]:
    """Return what a user should know: a name that no document has, a default, and what may not work.

    Args:
        soc: see :func:`chosen_precision`.
        precision: see :func:`chosen_precision`.
    """
    chip, chosen = chip_of(soc), chosen_precision(soc, precision)
    said = []
    if soc not in chip.names:
        near = difflib.get_close_matches(soc, chip.names, n=1, cutoff=0)[0]
        said.append(f"warning: no document that vconv knows names {soc}; did you mean {near}?")
    if precision is None:
        said.append(f"--om-precision {chosen}: the default for {soc}, of the family {chip.family}")
    if chosen in chip.doubtful:
        doubt = chip.doubtful[chosen]
        said.append(f"warning: {soc} may not compute as --om-precision {chosen} says: {doubt}")
    return said
