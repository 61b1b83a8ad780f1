"""The command line: parse, call one workflow, print, exit."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import click

from vconv._version import VERSION
from vconv.catalog import systems
from vconv.cli.completion import artifact, one_of, system
from vconv.cli.examples import HELP
from vconv.cli.group import Commands
from vconv.cli.live import progress
from vconv.cli.options import (
    DEVICES,
    ENGINE,
    HF32,
    HUB,
    JSON,
    OFFLINE,
    ONE_ENGINE,
    PROFILE,
    SEED,
    TEXT,
    VARIANT,
    WITHIN,
    converting,
    device,
    images,
    measuring,
    offline_model,
    weights,
    whole_numbers,
)


def show(document: Any, draw: Callable[[Any], None], as_json: bool) -> None:
    """Print a result: as JSON, or drawn for a terminal, once what was drawn of progress is gone."""
    click.get_current_context().close()
    if as_json:
        click.echo(json.dumps(document, indent=2, allow_nan=False, default=_plain))
    else:
        draw(document)


def _plain(document: Any) -> Any:
    """Turn a typed report into what JSON can hold; nothing else comes here."""
    return document.as_json()


def exit_by(passed: bool) -> None:
    """Exit with 1 where a validation did not pass."""
    if not passed:
        sys.exit(1)


@click.group("vconv", cls=Commands, help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="vconv")
def main() -> None:
    """Run the command that is named."""


@main.command("list")
@JSON
def list_systems(as_json: bool) -> None:
    """List the systems that vconv knows."""
    from vconv.cli import render

    rows = [
        {
            **{"name": system.name, "hub_id": system.hub_id, "library": system.library},
            **{"input": system.input, "licence": system.licence, "gated": system.gated},
        }
        for system in systems.SYSTEMS.values()
    ]
    show(rows, render.systems, as_json)


@main.command()
@click.argument("path", type=TEXT, shell_complete=artifact)
@JSON
def info(path: str, as_json: bool) -> None:
    """Show what an artifact is, and how it was last validated."""
    from vconv.cli import render
    from vconv.workflows import export as workflows

    show(workflows.describe(path), render.artifact, as_json)


@main.command()
@click.argument("name", shell_complete=system)
@weights(
    "A folder, a file, hub:REPOSITORY[@REVISION], or synthetic[:SEED].  "
    "[default: the system's own repository]"
)
@HUB
@OFFLINE
@converting
@offline_model
@JSON
def export(as_json: bool, golden: str, gears: str | None, **options: Any) -> None:
    """Make the artifact of the system NAME.

    It holds a patched checkpoint, ONNX graphs, and what the reference gives.
    """
    from vconv.cli import render
    from vconv.workflows import export as workflows

    batches = () if gears is None else whole_numbers(gears, "--gears")
    document = workflows.export(golden=golden == "record", gears=batches, say=progress(), **options)
    show(document, render.exported, as_json)


@main.command()
@click.argument("path", type=TEXT, shell_complete=artifact)
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
def validate(as_json: bool, **options: Any) -> None:
    """Judge the artifact PATH against the original, and time it.

    Each of its variants is judged: the patched model in torch, and every graph.
    """
    from vconv.cli import render
    from vconv.workflows import validate as judging

    document = judging.validate(say=progress(), **options)
    show(document, render.validated, as_json)
    exit_by(document.passed)


@main.command()
@click.argument("path", type=TEXT, shell_complete=artifact)
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
    """Record what the original gives here, for another machine.

    The artifact PATH is validated there against the file that is written here.
    """
    from vconv.cli import render
    from vconv.workflows import reference as referring

    show(referring.reference(say=progress(), **options), render.referred, as_json)


@main.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=TEXT, shell_complete=artifact)
@measuring
@JSON
def compare(as_json: bool, **options: Any) -> None:
    """Judge and time artifacts side by side, in one table.

    Each PATH is one, with all its variants.
    """
    from vconv.cli import render
    from vconv.workflows import compare as comparing

    document = comparing.compare(say=progress(), **options)
    show(document, render.compared, as_json)
    exit_by(document.passed)


@main.command()
@click.argument("path", type=TEXT, shell_complete=artifact)
@click.option(
    "--lang", type=click.Choice(["en", "zh"]), help="English or Chinese.  [default: as it is, else en]"
)
@click.option("--force", is_flag=True, help="Replace a README.md that was changed by hand.")
@JSON
def card(as_json: bool, **options: Any) -> None:
    """Write an artifact's model card, README.md.

    It is made from the manifest and the reports of the artifact PATH.
    """
    from vconv.cli import render
    from vconv.workflows import card as carding

    show(carding.card(say=progress(), **options), render.carded, as_json)


@main.command()
@click.argument("path", required=False, type=TEXT, shell_complete=artifact)
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
def selftest(as_json: bool, **options: Any) -> None:
    """Show that validation fails known faults.

    They are made one at a time in a copy of the artifact PATH; without PATH, in miniatures of every system.
    """
    from vconv.cli import render
    from vconv.workflows import selftest as selftesting

    document = selftesting.selftest(say=progress(), **options)
    show(document, render.selftested, as_json)
    exit_by(document["passed"])


@main.command()
@click.argument("path", type=TEXT, shell_complete=artifact)
@VARIANT
@weights(
    "The original's weights.  [default: where they came from; without them a graph is held against the "
    "patched model]"
)
@HUB
@OFFLINE
@device("Where the variant is run: cpu, cuda[:N] or npu[:N]; the reference is run on the CPU.")
@ONE_ENGINE
@WITHIN
@images("to look at")
@SEED
@JSON
def bisect(as_json: bool, **options: Any) -> None:
    """Find the block and the operator at which a variant departs.

    It is a variant of the artifact PATH, held against its reference.
    """
    from vconv.cli import render
    from vconv.workflows import bisect as localising

    document = localising.bisect(say=progress(), **options)
    show(document, render.bisected, as_json)
    exit_by(document.passed)


@main.command()
@click.argument("path", type=TEXT, shell_complete=artifact)
@weights("Your copy of the original's weights.  [default: where they came from]")
@HUB
@OFFLINE
@JSON
def fill(as_json: bool, **options: Any) -> None:
    """Complete the artifact PATH, exported without weights.

    They are made from your own copy of the original's.
    """
    from vconv.cli import render
    from vconv.workflows import export as workflows

    show(workflows.fill(say=progress(), **options), render.filled, as_json)


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
    metavar="NAME",
    shell_complete=one_of(DEVICES),
    help="What --probe runs on: npu[:N], npu-sim, cuda[:N] or cpu.  [default: npu]",
)
@HF32
@PROFILE
@JSON
def doctor(as_json: bool, probed: bool, **options: Any) -> None:
    """Look at what is installed here, and say how to mend it.

    Exit status 0: everything that is installed works; what is missing for an NPU is noted, no more.
    """
    from vconv.cli import render
    from vconv.workflows import doctor as diagnosing

    document = diagnosing.diagnose(probed, say=progress(), **options)
    show(document, render.diagnosed, as_json)
    exit_by(document["passed"])
