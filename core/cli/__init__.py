"""The command line: parse, call one workflow, print, exit. Nothing else is done here."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import click

from vconv import catalog
from vconv._version import VERSION
from vconv.cli.group import Commands
from vconv.cli.options import (
    ENGINE,
    HF32,
    HUB,
    JSON,
    OFFLINE,
    PROFILE,
    SEED,
    TEXT,
    WITHIN,
    device,
    images,
    measuring,
    offline_model,
    weights,
)


def progress() -> Callable[[str], None]:
    """Return what prints lines of progress to standard error, each with the seconds that have passed."""
    start = time.perf_counter()

    def say(line: str) -> None:
        click.echo(f"{time.perf_counter() - start:6.1f} s  {line}", err=True)

    return say


def names(text: str) -> list[str]:
    """Take apart names with commas between."""
    return [name.strip() for name in text.split(",") if name.strip()]


def whole_numbers(text: str, option: str) -> list[int]:
    """Take apart whole numbers with commas between; refuse anything else."""
    try:
        return [int(name) for name in names(text)]
    except ValueError as error:
        raise click.UsageError(f"{option} takes whole numbers with commas between, not {text!r}") from error


def show(document: Any, draw: Callable[[Any], None], as_json: bool) -> None:
    """Print a result: as JSON, or drawn for a terminal."""
    if as_json:
        click.echo(json.dumps(document, indent=2, allow_nan=False))
    else:
        draw(document)


def exit_by(document: Mapping[str, Any]) -> None:
    """Exit with 1 where a validation did not pass."""
    if not document["passed"]:
        sys.exit(1)


_HELP = """Convert, export and validate vision transformers for Ascend NPUs.

\b
vconv export dinov3-vits16 --weights FOLDER
vconv validate artifacts/dinov3-vits16 --weights FOLDER
"""


@click.group("vconv", cls=Commands, help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="vconv")
def main() -> None:
    """Run the command that is named."""


@main.command("list")
@JSON
def list_systems(as_json: bool) -> None:
    """List the systems that vconv knows."""
    from vconv import display

    rows = [
        {"name": system.name, "hub_id": system.hub_id, "library": system.library, "licence": system.licence}
        for system in catalog.SYSTEMS.values()
    ]
    show(rows, display.systems, as_json)


@main.command()
@click.argument("path", type=TEXT)
@JSON
def info(path: str, as_json: bool) -> None:
    """Show what an artifact is."""
    from vconv import display, workflows

    show(workflows.describe(path), display.artifact, as_json)


@main.command()
@click.argument("name")
@weights(
    "A folder, a file, hub:REPOSITORY[@REVISION], or synthetic[:SEED].  "
    "[default: the system's own repository]"
)
@HUB
@OFFLINE
@click.option("--out", type=TEXT, help="The artifact's own folder.  [default: artifacts/NAME]")
@click.option("--force", is_flag=True, help="Replace an artifact that is there.")
@click.option("--batch", default=1, show_default=True, metavar="N", help="Batch of the static NPU graph.")
@click.option(
    "--opset", default=18, show_default=True, metavar="N", help="ONNX opset of the dynamic graph, 18 to 22."
)
@images("to record and check on")
@click.option(
    "--golden",
    type=click.Choice(["record", "none"]),
    default="record",
    show_default=True,
    help="Run the reference, record it and check every variant against it; or do none of these.",
)
@click.option(
    "--pool",
    type=click.Choice(["cls", "avg"]),
    help="How timm's systems pool.  [default: as the library does]",
)
@click.option(
    "--periods",
    type=click.Choice(["authors", "library"]),
    help="Whose RoPE periods a DINOv3 gets: its authors', in bfloat16, or, for one that was trained further "
    "with its library's, those, in float32.  [default: authors]",
)
@click.option(
    "--without-weights",
    is_flag=True,
    help="Leave model.safetensors out of what is kept; `vconv fill` makes it from one's own copy.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the made-up images.")
@offline_model
@JSON
def export(as_json: bool, golden: str, gears: str, **options: Any) -> None:
    """Make the artifact of the system NAME: patched checkpoint, ONNX graphs, recorded reference."""
    from vconv import display, workflows

    document = workflows.export(
        golden=golden == "record", gears=whole_numbers(gears, "--gears"), say=progress(), **options
    )
    show(document, display.exported, as_json)


@main.command()
@click.argument("path", type=TEXT)
@weights("The original's weights.  [default: where they came from, or else the recorded outputs]")
@HUB
@images("to judge on")
@click.option(
    "--dataset",
    type=TEXT,
    metavar="FOLDER",
    help="Judge also on every image of a folder and its sub-folders; after a kill, go on where it stopped.",
)
@click.option(
    "--reference", type=TEXT, metavar="FILE", help="What `vconv reference` recorded on another machine."
)
@measuring
@SEED
@JSON
def validate(as_json: bool, precision: str, engines: tuple[str, ...], **options: Any) -> None:
    """Judge every variant of the artifact PATH against the original, and time it."""
    from vconv import display, judging

    document = judging.validate(
        precision=names(precision), engines=engines or None, say=progress(), **options
    )
    show(document, display.validated, as_json)
    exit_by(document)


@main.command()
@click.argument("path", type=TEXT)
@click.option(
    "--out", type=TEXT, required=True, metavar="FILE", help="The file to write, outside of the artifact."
)
@weights("The original's weights.  [default: where they came from]")
@HUB
@OFFLINE
@device("Where to run it: cpu or cuda[:N].")
@images("to record")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@SEED
@JSON
def reference(as_json: bool, **options: Any) -> None:
    """Record what the original of the artifact PATH gives here, to validate against on another machine.

    \b
    vconv reference PATH --device cuda --out reference.safetensors
    vconv validate PATH --device npu --reference reference.safetensors
    """
    from vconv import display, referring

    show(referring.reference(say=progress(), **options), display.referred, as_json)


@main.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=TEXT)
@measuring
@JSON
def compare(as_json: bool, precision: str, engines: tuple[str, ...], **options: Any) -> None:
    """Judge and time the variants of the artifacts PATH... side by side, in one table."""
    from vconv import display, judging

    document = judging.compare(precision=names(precision), engines=engines or None, say=progress(), **options)
    show(document, display.compared, as_json)
    exit_by(document)


@main.command()
@click.argument("path", type=TEXT)
@click.option(
    "--lang", type=click.Choice(["en", "zh"]), help="English or Chinese.  [default: as it is, else en]"
)
@click.option("--force", is_flag=True, help="Replace a README.md that was changed by hand.")
@JSON
def card(as_json: bool, **options: Any) -> None:
    """Write the model card of the artifact PATH, README.md, from its manifest and its reports."""
    from vconv import carding, display

    show(carding.card(say=progress(), **options), display.carded, as_json)


@main.command()
@click.argument("path", required=False, type=TEXT)
@weights("The original's weights.  [default: where they came from]")
@HUB
@OFFLINE
@WITHIN
@ENGINE
@click.option(
    "--clean-runs",
    default=6,
    show_default=True,
    metavar="N",
    help="How often each artifact is validated with nothing wrong, on other images each time.",
)
@JSON
def selftest(as_json: bool, engines: tuple[str, ...], **options: Any) -> None:
    """Show that validation fails known faults, made one at a time in a copy of the artifact PATH.

    Without PATH, in miniatures of every system.
    """
    from vconv import display, selftesting

    document = selftesting.selftest(engines=engines or None, say=progress(), **options)
    show(document, display.selftested, as_json)
    exit_by(document)


@main.command()
@click.argument("path", type=TEXT)
@click.option(
    "--variant",
    type=TEXT,
    default="onnx-fp32",
    show_default=True,
    metavar="NAME",
    help="onnx-fp32, onnx-fp32-npu, patched-torch-PRECISION or original-torch-PRECISION.",
)
@weights(
    "The original's weights.  [default: where they came from; without them a graph is held against the "
    "patched model]"
)
@HUB
@OFFLINE
@device("Where the variant is run: cpu, cuda[:N] or npu[:N]; the reference is run on the CPU.")
@click.option(
    "--engine",
    type=TEXT,
    metavar="NAME",
    help="What runs a graph: onnxruntime or openvino.  [default: onnxruntime]",
)
@WITHIN
@images("to look at")
@SEED
@JSON
def bisect(as_json: bool, **options: Any) -> None:
    """Find where a variant of the artifact PATH departs from its reference: the block, and its operator."""
    from vconv import display, localising

    document = localising.bisect(say=progress(), **options)
    show(document, display.bisected, as_json)
    exit_by(document)


@main.command()
@click.argument("path", type=TEXT)
@weights("Your copy of the original's weights.  [default: where they came from]")
@HUB
@OFFLINE
@JSON
def fill(as_json: bool, **options: Any) -> None:
    """Complete the artifact PATH, which was exported without weights, from your own copy of them."""
    from vconv import display, workflows

    show(workflows.fill(say=progress(), **options), display.filled, as_json)


@main.command()
@click.option(
    "--probe",
    "probed",
    is_flag=True,
    help="Also run GELU, convolution and matrix products on a device, and say how it computes them.",
)
@click.option(
    "--device",
    type=TEXT,
    help="What --probe runs on: npu[:N], npu-sim, cuda[:N] or cpu.  [default: npu]",
)
@HF32
@PROFILE
@JSON
def doctor(as_json: bool, probed: bool, **options: Any) -> None:
    """Look at what is installed here, and say how to mend what does not work.

    Exit status 0: everything that is installed works; what is missing for an NPU is noted, no more.
    """
    from vconv import diagnosing, display

    document = diagnosing.diagnose(probed, say=progress(), **options)
    show(document, display.diagnosed, as_json)
    exit_by(document)
