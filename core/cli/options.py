"""Options that mean the same in every command."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import click

from vconv.cli.completion import one_of
from vconv.precisions import AUTO, FP32, PRECISIONS
from vconv.runtime.devices.table import ALL, KINDS
from vconv.runtime.engines.table import graph_engines, usual_engine
from vconv.runtime.engines.torch_kinds import TORCH_KINDS, TorchName
from vconv.types import GRAPHS


class Filled(click.types.StringParamType):
    """Text that is not empty: a variable of the shell that was not set is no path and no name."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Take what was given; refuse nothing but spaces."""
        text = str(super().convert(value, param, ctx))
        if not text.strip():
            self.fail("an empty string", param, ctx)
        return text


def names(text: str) -> list[str]:
    """Take apart names with commas between."""
    return [name.strip() for name in text.split(",") if name.strip()]


def whole_numbers(text: str, option: str) -> list[int]:
    """Take apart whole numbers with commas between; refuse anything else, and none at all."""
    with contextlib.suppress(ValueError):
        found = [int(name) for name in names(text)]
        if found:
            return found
    raise click.UsageError(f"{option} takes whole numbers with commas between, not {text!r}")


def hf32_names(text: str) -> tuple[str, ...]:
    """Take apart what may compute in HF32; nothing for ``none``."""
    found = tuple(names(text))
    return () if found == ("none",) else found


TEXT = Filled()
GROUPS: Mapping[str, tuple[str, ...]] = {
    "What goes in": (
        "weights",
        "hub",
        "offline",
        "images",
        "dataset",
        "seed",
        "reference",
        "pool",
        "periods",
    ),
    "What is made": ("out", "force", "batch", "opset", "golden", "without_weights", "lang"),
    "Offline model": ("format", "soc", "gears", "om_precision"),
    "What is run, and where": (
        *("device", "variant", "engine", "engines", "precision", "capture", "hf32", "profile", "probed"),
    ),
    "How it is judged": ("within", "clean_runs"),
    "How long it is timed": ("quick", "full", "budget"),
}
"""Headings of options in the help of every command, in order, with the names of their parameters."""
DEVICES = (*KINDS, ALL)
"""Kinds of devices, which may have a number, and all of those that are there."""
ENGINES = tuple(graph_engines())
"""What runs graphs."""
VARIANTS = (
    *(graph.name for graph in GRAPHS),
    *(str(TorchName(kind, FP32)) for kind in reversed(TORCH_KINDS)),
)
"""What can be looked into, torch variants in float32."""
HUB = click.option(
    "--hub",
    type=click.Choice(["huggingface", "modelscope"]),
    default="huggingface",
    show_default=True,
    help="Where repositories are looked for.",
)
OFFLINE = click.option(
    "--offline", is_flag=True, help="Look for repositories in the hub's cache alone, not on the network."
)
PRECISION = click.option(
    "--precision",
    default=AUTO,
    show_default=True,
    metavar="NAMES",
    callback=lambda context, option, value: names(value),
    shell_complete=one_of((AUTO, *PRECISIONS)),
    help=f"What torch variants run in, with commas between: {', '.join(PRECISIONS)}, "
    f"or {AUTO}: what the device usually runs.",
)
CAPTURE = click.option(
    "--capture",
    is_flag=True,
    help="Run torch variants also captured as one graph and replayed: on CUDA and NPUs.",
)
ENGINE = click.option(
    "--engine",
    "engines",
    type=TEXT,
    multiple=True,
    metavar="NAME",
    callback=lambda context, option, value: value or None,
    shell_complete=one_of(ENGINES),
    help=f"What runs the graphs: {', '.join(ENGINES)}; repeatable.  [default: {usual_engine()}]",
)
ONE_ENGINE = click.option(
    "--engine",
    type=TEXT,
    metavar="NAME",
    shell_complete=one_of(ENGINES),
    help=f"What runs a graph: {' or '.join(ENGINES)}.  [default: {usual_engine()}]",
)
VARIANT = click.option(
    "--variant",
    type=TEXT,
    default="onnx-fp32",
    show_default=True,
    metavar="NAME",
    shell_complete=one_of(VARIANTS),
    help=f"{', '.join(graph.name for graph in GRAPHS)}, "
    + " or ".join(str(TorchName(kind, "PRECISION")) for kind in reversed(TORCH_KINDS))
    + ".",
)
HF32 = click.option(
    "--hf32",
    type=TEXT,
    metavar="NAMES",
    callback=lambda context, option, value: None if value is None else hf32_names(value),
    help="What an NPU may compute in HF32, with commas between: conv, matmul, or none.  [default: conv]",
)
PROFILE = click.option(
    "--profile",
    type=TEXT,
    metavar="NAME",
    help="Which NPU npu-sim imitates: 910b, or 310p, whose products take float16.  [default: 910b]",
)
WITHIN = click.option(
    "--within",
    type=TEXT,
    default="strict",
    show_default=True,
    metavar="LIMITS",
    shell_complete=one_of(("strict", "card")),
    help="strict, card, or a TOML file with limits in place of strict ones.",
)
SEED = click.option(
    "--seed",
    default=0,
    show_default=True,
    metavar="N",
    help="Seed of made-up images, where none were recorded.",
)
QUICK = click.option("--quick", is_flag=True, help="A glance: 10 runs.")
FULL = click.option("--full", is_flag=True, help="Batches 1, 2, 4, 8 and 16, 100 runs each.")
BUDGET = click.option(
    "--budget",
    type=float,
    metavar="SECONDS",
    help="Longest time a variant and batch may take.  [default: 60]",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")


FORMAT = click.option(
    "--format",
    type=click.Choice(["onnx", "om"]),
    default="onnx",
    show_default=True,
    help="om adds an offline model for an Ascend NPU, compiled by CANN's atc; without atc, what makes it.",
)
SOC = click.option(
    "--soc", type=TEXT, metavar="NAME", help="Processor that the offline model is for, such as Ascend910B4."
)
GEARS = click.option(
    "--gears",
    metavar="N,N...",
    help="Batches that the offline model switches between.  [default: --batch alone]",
)
OM_PRECISION = click.option(
    "--om-precision",
    type=click.Choice(["origin", "fp16", "mixed_float16", "cube_fp16in_fp32out"]),
    default="origin",
    show_default=True,
    help="What the offline model computes in, as atc's --precision_mode_v2 has it.",
)


def offline_model(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of offline models."""
    for option in (OM_PRECISION, GEARS, SOC, FORMAT):
        command = option(command)
    return command


def weights(what: str) -> Callable[..., Any]:
    """Return the option that says where weights are."""
    return click.option("--weights", type=TEXT, metavar="WHERE", help=what)


def images(purpose: str) -> Callable[..., Any]:
    """Return the option that names photographs, for a purpose."""
    what = f"A photograph, or a folder of them, {purpose}; repeatable."
    return click.option("--images", type=TEXT, multiple=True, metavar="WHERE", help=what)


def device(what: str) -> Callable[..., Any]:
    """Return the option that names a device."""
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
    """Give a command the options of all that judges and times."""
    anywhere = device(f"Where to run: {', '.join(kind.shown for kind in KINDS.values())}, or {ALL} but that.")
    for option in (BUDGET, FULL, QUICK, ENGINE, WITHIN, CAPTURE, PRECISION, PROFILE, HF32, anywhere, OFFLINE):
        command = option(command)
    return command


_CONVERTING = (
    click.option(
        "--out", type=TEXT, metavar="FOLDER", help="The artifact's own folder.  [default: artifacts/NAME]"
    ),
    click.option("--force", is_flag=True, help="Replace an artifact that is there."),
    click.option("--batch", default=1, show_default=True, metavar="N", help="Batch of the static NPU graph."),
    click.option(
        "--opset",
        default=18,
        show_default=True,
        metavar="N",
        help="ONNX opset of the dynamic graph, 18 to 22.",
    ),
    images("to record and check on"),
    click.option(
        "--golden",
        type=click.Choice(["record", "none"]),
        default="record",
        show_default=True,
        help="Run the reference, record it and check every variant against it; or do none of these.",
    ),
    click.option(
        "--pool",
        type=click.Choice(["cls", "avg"]),
        help="How timm's systems pool.  [default: as the library does]",
    ),
    click.option(
        "--periods",
        type=click.Choice(["authors", "library"]),
        help="Whose RoPE periods a DINOv3 gets: its authors', in bfloat16, or, for one that was trained "
        "further with its library's, those, in float32.  [default: authors]",
    ),
    click.option(
        "--without-weights",
        is_flag=True,
        help="Leave model.safetensors out of what is kept; `vconv fill` makes it from one's own copy.",
    ),
    click.option("--seed", default=0, show_default=True, metavar="N", help="Seed of the made-up images."),
)


def converting(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of what is made, and how."""
    for option in reversed(_CONVERTING):
        command = option(command)
    return command
