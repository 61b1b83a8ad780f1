"""Options that have the same meaning in every command."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import click

from vconv.cli.completion import one_of
from vconv.precisions import AUTO, FP32, torch_precisions
from vconv.runtime.devices.table import ALL, KINDS
from vconv.runtime.engines.table import ALL as ALL_ENGINES
from vconv.runtime.engines.table import Runs, engines_of, graph_engines, usual_engine
from vconv.runtime.engines.torch_kinds import TORCH_KINDS, TorchName
from vconv.types import GRAPHS


class Filled(click.types.StringParamType):
    """Text that is not empty: an unset shell variable must not count as a path or a name."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the given text; refuse a text that is empty or only spaces."""
        text = str(super().convert(value, param, ctx))
        if not text.strip():
            self.fail("an empty string", param, ctx)
        return text


def names(text: str) -> list[str]:
    """Split a list of names at its commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def whole_numbers(text: str, option: str) -> list[int]:
    """Split a list of whole numbers at its commas; refuse anything else, and an empty list."""
    with contextlib.suppress(ValueError):
        found = [int(name) for name in names(text)]
        if found:
            return found
    raise click.UsageError(f"{option} takes whole numbers separated by commas, not {text!r}")


def hf32_names(text: str) -> tuple[str, ...]:
    """Split a list of operations that may compute in HF32 at its commas; ``none`` means no operation."""
    found = tuple(names(text))
    return () if found == ("none",) else found


TEXT = Filled()
GROUPS: Mapping[str, tuple[str, ...]] = {
    "Inputs": (
        "weights",
        "against",
        "hub",
        "offline",
        "images",
        "dataset",
        "seed",
        "reference",
        "beside",
        "pool",
        "periods",
        "positions",
        "weights_layout",
        "allow_lossy",
        "state_dict",
    ),
    "Results": (
        *(
            "out",
            "force",
            "layout",
            "size",
            "outputs",
            "batch",
            "opset",
            "npu_opset",
            "attention",
            "golden",
            "without_weights",
            "keep_dtype",
        ),
        *("with_preprocessing", "aipp"),
        *("lang", "page", "with_files", "reports"),
    ),
    "Offline model": ("format", "soc", "gears", "gears_size", "om_precision"),
    "Execution": (
        *("device", "variant", "engine", "engines", "precision", "capture", "hf32", "profile", "fusions"),
        *("probed", "profile_npu"),
    ),
    "Limits and checks": ("within", "clean_runs"),
    "Timing": ("quick", "full", "budget"),
}
"""Headings of options in the help of every command, in order, with the names of their parameters."""
DEVICES = (*KINDS, ALL)
"""Kinds of devices, each with or without a number, and ``all``."""
ENGINES = tuple(graph_engines())
"""The engines for graphs."""
MODEL_ENGINES = tuple(engines_of(Runs.MODELS))
"""The engines for torch variants."""
VARIANTS = (
    *(graph.name for graph in GRAPHS),
    *(str(TorchName(kind, FP32)) for kind in reversed(TORCH_KINDS)),
)
"""Variants that ``bisect`` takes; torch variants are listed in float32, but take other precisions too."""
HUB = click.option(
    "--hub",
    type=click.Choice(["huggingface", "modelscope"]),
    default="huggingface",
    show_default=True,
    help="The hub that repositories are taken from.",
)
OFFLINE = click.option(
    "--offline", is_flag=True, help="Use only the hub's cache on this machine, not the network."
)
PRECISION = click.option(
    "--precision",
    default=AUTO,
    show_default=True,
    metavar="NAMES",
    callback=lambda context, option, value: names(value),
    shell_complete=one_of((AUTO, *torch_precisions())),
    help=f"Precisions of the torch variants, separated by commas: {', '.join(torch_precisions())}. {AUTO} is "
    f"{FP32} on a CPU, and every precision that a GPU or NPU has.",
)
CAPTURE = click.option(
    "--capture",
    is_flag=True,
    help="On CUDA and NPUs, also run each torch variant as one captured graph.",
)
ENGINE = click.option(
    "--engine",
    "engines",
    type=TEXT,
    multiple=True,
    metavar="NAME",
    callback=lambda context, option, value: [name for text in value for name in names(text)] or None,
    shell_complete=one_of((*ENGINES, *MODEL_ENGINES, ALL_ENGINES)),
    help=f"An engine for the graphs, {', '.join(ENGINES)}, or for the torch variants, "
    f"{', '.join(MODEL_ENGINES)}; or {ALL_ENGINES}. Several are separated by commas, "
    f"or the option is repeated.  "
    f"[default: {usual_engine()} and {usual_engine(Runs.MODELS)}; on a CPU also a simulation of float16]",
)
ONE_ENGINE = click.option(
    "--engine",
    type=TEXT,
    metavar="NAME",
    shell_complete=one_of(ENGINES),
    help=f"The engine for a graph: {', '.join(ENGINES)}.  [default: {usual_engine()}]",
)
VARIANT = click.option(
    "--variant",
    type=TEXT,
    default="onnx-fp32",
    show_default=True,
    metavar="NAME",
    shell_complete=one_of(VARIANTS),
    help=f"The variant: {', '.join(graph.name for graph in GRAPHS)}, "
    + " or ".join(str(TorchName(kind, "PRECISION")) for kind in reversed(TORCH_KINDS))
    + ".",
)
HF32 = click.option(
    "--hf32",
    type=TEXT,
    metavar="NAMES",
    callback=lambda context, option, value: None if value is None else hf32_names(value),
    help="Operations that an NPU may compute in HF32, separated by commas: conv, matmul, or none.  "
    "[default: conv]",
)
PROFILE = click.option(
    "--profile",
    type=TEXT,
    metavar="NAME",
    help="The NPU that npu-sim imitates: 910b, or 310p, which computes products in float16.  [default: 910b]",
)
FUSIONS = click.option(
    "--fusions",
    type=click.Choice(["on", "off"]),
    help="Whether npu-sim runs the published fusion passes of CANN's compiler on graphs.  [default: off]",
)
WITHIN = click.option(
    "--within",
    type=TEXT,
    default="strict",
    show_default=True,
    metavar="LIMITS",
    shell_complete=one_of(("strict", "card")),
    help="The limits of the errors: strict, card (those of published reports), or a TOML file that replaces "
    "some of the strict limits.",
)
SEED = click.option(
    "--seed",
    default=0,
    show_default=True,
    metavar="N",
    help="Seed of the generated images. They are used if the artifact has no recorded inputs.",
)
REPORTS = click.option(
    "--reports",
    type=TEXT,
    metavar="FOLDER",
    help="The folder for the report. Nothing is then written into the artifact.  [default: its reports/]",
)
QUICK = click.option("--quick", is_flag=True, help="Short check with 10 timed runs.")
FULL = click.option("--full", is_flag=True, help="Time batches 1, 2, 4, 8 and 16, with 100 runs each.")
BUDGET = click.option(
    "--budget",
    type=float,
    metavar="SECONDS",
    help="Longest time for one variant at one batch.  [default: 60; 20 with --quick; none with --full]",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")


FORMAT = click.option(
    "--format",
    type=click.Choice(["onnx", "om", "air"]),
    default="onnx",
    show_default=True,
    help="onnx makes graphs. om also makes an offline model for an Ascend NPU with CANN's atc. air makes one "
    "from a graph of torchair instead. Where atc or torchair is not installed, there is a script that makes "
    "the model later.",
)
SOC = click.option(
    "--soc",
    type=TEXT,
    metavar="NAME",
    help="The processor of the offline model, such as Ascend910B4, Ascend910_9391 or Ascend310P3.",
)
GEARS = click.option(
    "--gears",
    metavar="N,N...",
    help="Batch sizes that the offline model has, such as 1,2,4,8.  [default: only --batch]",
)
GEARS_SIZE = click.option(
    "--gears-size",
    metavar='"H,W;H,W..."',
    help="Sizes of images that the offline model has, such as 224,224;448,448 in quotes; needs --size "
    "dynamic, whose size must be one of them.  [default: only the size of model.npu.onnx]",
)
OM_PRECISION = click.option(
    "--om-precision",
    type=click.Choice(["origin", "fp16", "mixed_float16", "cube_fp16in_fp32out"]),
    help="The precision of the offline model: a value of atc's --precision_mode_v2.  [default: origin if the "
    "processor computes float32, else cube_fp16in_fp32out]",
)


def offline_model(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of offline models to a command."""
    for option in (OM_PRECISION, GEARS_SIZE, GEARS, SOC, FORMAT):
        command = option(command)
    return command


def weights(what: str) -> Callable[..., Any]:
    """Return the option for the source of the weights."""
    return click.option("--weights", type=TEXT, metavar="WHERE", help=what)


def images(purpose: str) -> Callable[..., Any]:
    """Return the option for photographs, with its purpose in the help."""
    what = f"A photograph {purpose}, or a folder of photographs. May be repeated."
    return click.option("--images", type=TEXT, multiple=True, metavar="WHERE", help=what)


def device(what: str) -> Callable[..., Any]:
    """Return the option for a device."""
    return click.option(
        "--device",
        type=TEXT,
        default="cpu",
        show_default=True,
        metavar="NAME",
        shell_complete=one_of(DEVICES),
        help=what,
    )


def measuring(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options for comparing and timing to a command."""
    anywhere = device(
        f"The device: {', '.join(kind.shown for kind in KINDS.values())}, or {ALL}, which is every "
        f"device except {' and '.join(kind.name for kind in KINDS.values() if kind.simulated)}."
    )
    for option in (
        BUDGET,
        FULL,
        QUICK,
        ENGINE,
        WITHIN,
        CAPTURE,
        PRECISION,
        FUSIONS,
        PROFILE,
        HF32,
        anywhere,
        OFFLINE,
    ):
        command = option(command)
    return command


_CONVERTING = (
    click.option(
        "--out", type=TEXT, metavar="FOLDER", help="The folder of the artifact.  [default: artifacts/NAME]"
    ),
    click.option("--force", is_flag=True, help="Replace an existing artifact."),
    click.option(
        "--batch",
        default=1,
        show_default=True,
        metavar="N",
        help="Batch size of the static graph for the NPU.",
    ),
    click.option(
        "--size",
        type=TEXT,
        metavar="H,W|dynamic",
        help="Height and width of the images in pixels, multiples of the patch.  [default: the image "
        "processor's]. With dynamic, or dynamic:H,W, model.onnx takes images of any size.",
    ),
    click.option(
        "--outputs",
        type=TEXT,
        metavar="NAMES",
        help="The outputs of every variant, such as pooled,cls,feature_map:3,6,9,12,attention:12. The "
        "numbers are those of blocks, from 1.  [default: those that the network itself has]",
    ),
    click.option(
        "--opset",
        default=18,
        show_default=True,
        metavar="N",
        help="ONNX opset of the dynamic graph, from 18 to 22.",
    ),
    click.option(
        "--npu-opset",
        type=int,
        metavar="N",
        help="ONNX opset of the graphs for an NPU: 13, 15, 17 or 18. CANN 7.0 and later read up to 18, CANN "
        "5 and 6.0 up to 13. 17 is the first that has LayerNormalization.  [default: 17; 18 for a network "
        "with an operator that 17 does not have]",
    ),
    click.option(
        "--attention",
        type=click.Choice(["rank3", "rank4"]),
        default="rank4",
        show_default=True,
        help="Whether the graphs for an NPU compute attention over tensors of rank 3, which is said to be "
        "faster on a 310P, or as the library does.",
    ),
    images("to record and compare on"),
    click.option(
        "--golden",
        type=click.Choice(["record", "none"]),
        default="record",
        show_default=True,
        help="record runs the reference, stores its outputs, and compares every variant with them. "
        "none skips all three.",
    ),
    click.option(
        "--pool",
        type=click.Choice(["cls", "avg"]),
        help="The pooling of a timm system.  [default: that of the library]",
    ),
    click.option(
        "--periods",
        type=click.Choice(["authors", "library"]),
        help="The RoPE periods of a DINOv3. authors: in bfloat16, as in the authors' files. library: in "
        "float32, for a model that was trained further with a library.  [default: authors]",
    ),
    click.option(
        "--positions",
        type=click.Choice(["authors", "library"]),
        help="Whose kernel resamples the position embedding of a DINOv2 without registers for images of "
        "another size. library: when the model runs. authors: once, and the artifact stores it for this "
        "size.  [default: library]",
    ),
    click.option(
        "--layout",
        type=click.Choice(["transformers", "timm", "facebook"]),
        help="Whose names and shapes the weights of the artifact get. The artifact is one of that library. "
        "facebook adds facebook/model.safetensors, which the authors' own code loads.  "
        "[default: the library of the system]",
    ),
    click.option(
        "--weights-layout",
        type=click.Choice(["transformers", "timm", "facebook"]),
        help="Whose names and shapes the weights have.  [default: recognised]",
    ),
    click.option(
        "--state-dict",
        type=TEXT,
        metavar="NAME",
        help="The entry of a training checkpoint with several state dicts, such as model_ema.",
    ),
    click.option(
        "--allow-lossy",
        is_flag=True,
        help="Convert weights from another layout even if this changes an output.",
    ),
    click.option(
        "--without-weights",
        is_flag=True,
        help="Leave model.safetensors out of the artifact. `vconv fill` makes it from a copy of the original "
        "weights.",
    ),
    click.option(
        "--keep-dtype",
        is_flag=True,
        help="Store float16 and bfloat16 weights as they are, in half the space. Graphs widen them and "
        "compute in float32.  [default: weights are stored in float32]",
    ),
    click.option(
        "--with-preprocessing",
        is_flag=True,
        help="Add model.uint8.onnx, which takes uint8 images of any size and resizes, crops and normalises "
        "them itself; and aipp.cfg, an AIPP configuration for ATC.",
    ),
    click.option(
        "--aipp",
        type=click.Choice(["static", "dynamic"]),
        help="Whether aipp.cfg has the numbers of the preprocessing, or a program sets them before each "
        "run.  [default: static]",
    ),
    click.option("--seed", default=0, show_default=True, metavar="N", help="Seed of the generated images."),
)


def converting(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of an export to a command."""
    for option in reversed(_CONVERTING):
        command = option(command)
    return command
