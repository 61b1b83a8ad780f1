"""The command line: parse, call one workflow, print, exit."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import click

import vconv
from vconv._version import VERSION
from vconv.cli.completion import artifact, one_of, system
from vconv.cli.examples import HELP
from vconv.cli.group import Commands
from vconv.cli.live import progress
from vconv.cli.options import (
    DEVICES,
    ENGINE,
    FUSIONS,
    HF32,
    HUB,
    JSON,
    OFFLINE,
    ONE_ENGINE,
    PROFILE,
    REPORTS,
    SEED,
    TEXT,
    VARIANT,
    VARIANTS,
    WITHIN,
    converting,
    device,
    images,
    measuring,
    names,
    offline_model,
    weights,
    whole_numbers,
)
from vconv.streams import printing


def show(document: Any, draw: Callable[[Any], None], as_json: bool) -> None:
    """Print a result as JSON or drawn for a terminal, after removing the progress display."""
    click.get_current_context().close()
    with printing():
        if as_json:
            click.echo(json.dumps(document, indent=2, allow_nan=False, default=_plain))
        else:
            draw(document)


def _plain(document: Any) -> Any:
    """Convert a typed report to plain JSON types, with its old keys; ``json`` calls this only for reports."""
    return document.with_old_keys(document.as_json())


def exit_by(passed: bool) -> None:
    """Exit with status 1 if a validation did not pass."""
    if not passed:
        sys.exit(1)


@click.group("vconv", cls=Commands, help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="vconv")
def main() -> None:
    """Run the named command."""


@main.command("list")
@JSON
def list_systems(as_json: bool) -> None:
    """List the systems that vconv can export."""
    from vconv.cli import render

    show(vconv.list_systems(), render.systems, as_json)


@main.command()
@click.argument("path", type=TEXT, shell_complete=artifact)
@click.option(
    "--ledger",
    is_flag=True,
    help="Also show every tensor of the source: copied, renamed, cast, split, fused, folded into others, "
    "resampled, or dropped and why.",
)
@JSON
def info(path: str, as_json: bool, ledger: bool) -> None:
    """Show what an artifact holds and how its last validations ended."""
    from vconv.cli import render

    show(vconv.info(path, ledger=ledger), render.artifact, as_json)


@main.command()
@click.argument("name", shell_complete=system)
@weights(
    "The source of the weights: a folder, a file, hub:OWNER/NAME[@REVISION], or synthetic[:SEED].  "
    "[default: the system's repository on the hub]"
)
@HUB
@OFFLINE
@converting
@offline_model
@JSON
def export(as_json: bool, golden: str, gears: str | None, **options: Any) -> None:
    """Export a system as an artifact.

    NAME is a short name or a hub id that `vconv list` shows, or another backbone: timm/NAME,
    hub:OWNER/NAME[@REVISION], or a folder with a config.json. The artifact holds a patched checkpoint, ONNX
    graphs, and the recorded outputs of the reference.
    """
    from vconv.cli import render

    batches = () if gears is None else whole_numbers(gears, "--gears")
    document = vconv.export(golden=golden == "record", gears=batches, say=progress(), **options)
    show(document, render.exported, as_json)


@main.command()
@click.argument("path", type=TEXT, shell_complete=artifact)
@weights(
    "The weights of the original model.  [default: the source that export used; if it is not available, "
    "the recorded outputs are the reference]"
)
@HUB
@click.option(
    "--against",
    type=TEXT,
    metavar="WHERE",
    help="What graphs of other exporters are judged by: an artifact, a folder with a checkpoint, or the name "
    "of a system. PATH is then a graph, or a folder with graphs.",
)
@click.option(
    "--periods",
    type=click.Choice(["authors", "library"]),
    help="With --against: the RoPE periods of a DINOv3 that graphs are judged by. Exporters of transformers' "
    "model write the library's.  [default: authors]",
)
@images("to compare on")
@click.option(
    "--dataset",
    type=TEXT,
    metavar="FOLDER",
    help="Also compare on every image of a folder and its sub-folders. A run that was killed continues where "
    "it stopped.",
)
@click.option(
    "--reference",
    type=TEXT,
    metavar="FILE",
    help="A reference that `vconv reference` recorded on another machine.",
)
@click.option(
    "--profile-npu",
    type=TEXT,
    metavar="FOLDER",
    help="Profile every torch variant on an NPU by torch_npu's profiler. The traces and the cost of every "
    "operator go into this folder, which must be empty.",
)
@measuring
@SEED
@REPORTS
@JSON
def validate(as_json: bool, **options: Any) -> None:
    """Compare an artifact with the original model, and time it.

    Every variant of the artifact PATH is compared and timed: the patched model in torch, and each graph. With
    --against, PATH is a graph of any other exporter, or a folder with such graphs.
    """
    from vconv.cli import render

    document = vconv.validate(say=progress(), **options)
    show(document, render.validated, as_json)
    exit_by(document.passed)


@main.command()
@click.argument("path", type=TEXT, shell_complete=artifact)
@click.option(
    "--out",
    type=TEXT,
    required=True,
    metavar="FILE",
    help="The file to write. It must be outside the artifact.",
)
@weights("The weights of the original model.  [default: the source that export used]")
@HUB
@OFFLINE
@device("The device that runs the original: cpu or cuda[:N].")
@images("to record")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@SEED
@JSON
def reference(as_json: bool, **options: Any) -> None:
    """Record the original's outputs for use on another machine.

    On the other machine, `vconv validate PATH --reference FILE` compares the artifact PATH with them.
    """
    from vconv.cli import render

    show(vconv.reference(say=progress(), **options), render.referred, as_json)


@main.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=TEXT, shell_complete=artifact)
@click.option(
    "--weights",
    type=TEXT,
    multiple=True,
    metavar="WHERE",
    help="The weights of the originals: repeated once for each PATH, in the same order; or once, for every "
    "PATH that was exported from a folder or a file. With graphs alone, or exporters: the weights of their "
    "original.  [default: the sources that export used]",
)
@HUB
@click.option(
    "--against",
    type=TEXT,
    metavar="WHERE",
    help="What graphs of other exporters are judged by: an artifact, a folder with a checkpoint, or the name "
    "of a system.  [default: the first artifact]",
)
@click.option(
    "--exporters",
    type=TEXT,
    multiple=True,
    metavar="NAMES",
    callback=lambda context, option, given: [name for text in given for name in names(text)],
    help="Compare exporters: PATH is the name of a system, or a folder with a checkpoint. all, or vconv, "
    "torch-dynamo, torch-script, transformers, timm, optimum=FOLDER with a virtual environment; "
    "separated by commas, or repeated.",
)
@click.option(
    "--periods",
    type=click.Choice(["authors", "library"]),
    help="With graphs or exporters: the RoPE periods of a DINOv3 that they are judged by.  "
    "[default: authors]",
)
@measuring
@REPORTS
@JSON
def compare(as_json: bool, **options: Any) -> None:
    """Compare and time several artifacts in one run and one table.

    Each PATH is an artifact, of which all variants are run; or a graph of any other exporter, or a folder
    with such graphs.
    """
    from vconv.cli import render

    document = vconv.compare(say=progress(), **options)
    show(document, render.compared, as_json)
    exit_by(document.passed)


@main.command()
@click.argument("path", type=TEXT, shell_complete=artifact)
@click.option(
    "--lang",
    type=click.Choice(["en", "zh"]),
    help="Language: English or Chinese.  [default: the language of the existing card, else en]",
)
@click.option(
    "--page",
    type=click.Choice(["gitcode", "modelscope", "huggingface"]),
    help="Write a folder to publish on this platform as a repository: the page, scripts, logs and results.",
)
@click.option(
    "--out",
    type=TEXT,
    metavar="FOLDER",
    help="That folder, outside the artifact: new, or empty.",
)
@click.option(
    "--with-files",
    type=click.Choice(["copy", "none"]),
    default="copy",
    show_default=True,
    help="Copy the artifact's own files into the folder too, or leave them out.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Replace a README.md that was changed by hand; with --page, a folder that vconv wrote.",
)
@JSON
def card(as_json: bool, **options: Any) -> None:
    """Write an artifact's model card, or a folder to publish.

    The card is written from the manifest and the reports of the artifact PATH.
    """
    from vconv.cli import render

    drawn = render.written_page if options["page"] else render.carded
    show(vconv.card(say=progress(), **options), drawn, as_json)


@main.command()
@click.argument("path", required=False, type=TEXT, shell_complete=artifact)
@weights("The weights of the original model.  [default: the source that export used]")
@HUB
@OFFLINE
@WITHIN
@ENGINE
@click.option(
    "--clean-runs",
    default=6,
    show_default=True,
    metavar="N",
    help="How often each artifact is also validated without a fault. It must pass every time. Each run uses "
    "other images.",
)
@JSON
def selftest(as_json: bool, **options: Any) -> None:
    """Show that validation detects known faults.

    Each fault is put into a copy of the artifact PATH, one at a time, and the copy must fail. Without PATH,
    small models are used, one of each structure.
    """
    from vconv.cli import render

    document = vconv.selftest(say=progress(), **options)
    show(document, render.selftested, as_json)
    exit_by(document["passed"])


@main.command()
@click.argument("path", type=TEXT, shell_complete=artifact)
@VARIANT
@weights(
    "The weights of the original model.  [default: the source that export used; if it is not available, a "
    "graph is compared with the patched model]"
)
@HUB
@OFFLINE
@device("The device that runs the variant: cpu, cuda[:N] or npu[:N]. The reference runs on the CPU.")
@ONE_ENGINE
@WITHIN
@images("to run it on")
@SEED
@REPORTS
@JSON
def bisect(as_json: bool, **options: Any) -> None:
    """Find the block and the operator where a variant goes wrong.

    A variant of the artifact PATH is compared with its reference, stage by stage.
    """
    from vconv.cli import render

    document = vconv.bisect(say=progress(), **options)
    show(document, render.bisected, as_json)
    exit_by(document.passed)


@main.command()
@click.argument("path", type=TEXT, shell_complete=artifact)
@click.option(
    "--out",
    type=TEXT,
    required=True,
    metavar="FOLDER",
    help="The folder to write. It must be outside the artifact.",
)
@click.option("--force", is_flag=True, help="Replace a folder that this command wrote.")
@click.option(
    "--variant",
    type=TEXT,
    metavar="NAME",
    shell_complete=one_of(VARIANTS),
    help="The graph.  [default: the one that CANN compiles: om/model.onnx if the artifact has it, else "
    "model.npu.onnx]",
)
@device("cpu writes the golden side; npu-sim also writes a target side, which is simulated.")
@HF32
@PROFILE
@FUSIONS
@images("to run")
@SEED
@click.option(
    "--beside",
    type=TEXT,
    metavar="RESULT_CSV",
    help="A result_TIME.csv that msprobe wrote. Its figures are set beside those of npu-sim, operator by "
    "operator.",
)
@JSON
def msprobe(as_json: bool, **options: Any) -> None:
    """Write tensors and a table for Huawei's msprobe.

    The golden side is what every operator of a graph of the artifact PATH gives on the CPU, in the files that
    `msprobe compare` reads. The folder's README.txt has the commands.
    """
    from vconv.cli import render

    show(vconv.msprobe(say=progress(), **options), render.dumped, as_json)


@main.command()
@click.argument("path", type=TEXT, shell_complete=artifact)
@weights("Your copy of the original weights.  [default: the source that export used]")
@HUB
@OFFLINE
@JSON
def fill(as_json: bool, **options: Any) -> None:
    """Add the weights to an artifact that was exported without them.

    The weights file of the artifact PATH is made from your copy of the original weights.
    """
    from vconv.cli import render

    show(vconv.fill(say=progress(), **options), render.filled, as_json)


@main.command()
@click.option(
    "--probe",
    "probed",
    is_flag=True,
    help="Also run GELU, convolution and matrix products on a device, and report how it computes them.",
)
@click.option(
    "--device",
    type=TEXT,
    metavar="NAME",
    shell_complete=one_of(DEVICES),
    help="The device for --probe: npu[:N], npu-sim, cuda[:N] or cpu.  [default: npu]",
)
@HF32
@PROFILE
@JSON
def doctor(as_json: bool, probed: bool, **options: Any) -> None:
    """Check the installed software, and say how to fix it.

    Exit status 0 means that everything that is installed works. Software for NPUs that is not installed is
    only noted.
    """
    from vconv.cli import render

    document = vconv.doctor(probed, say=progress(), **options)
    show(document, render.diagnosed, as_json)
    exit_by(document["passed"])
