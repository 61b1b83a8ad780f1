"""The command line: parse, call one workflow, print, exit. Nothing else is done here."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import click

from vconv import catalog
from vconv._version import VERSION
from vconv.errors import VconvError


class _Filled(click.types.StringParamType):
    """Text that is not empty: a variable of the shell that was not set is no path and no name."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(super().convert(value, param, ctx))
        if not text.strip():
            self.fail("an empty string", param, ctx)
        return text


_TEXT = _Filled()
_HUB = click.option(
    "--hub",
    type=click.Choice(["huggingface", "modelscope"]),
    default="huggingface",
    show_default=True,
    help="Where repositories are looked for.",
)
_OFFLINE = click.option(
    "--offline", is_flag=True, help="Look for repositories in the hub's cache alone, not on the network."
)
_DEVICE = click.option(
    "--device",
    type=_TEXT,
    default="cpu",
    show_default=True,
    help="Where to run: cpu, cuda[:N], npu[:N], or all.",
)
_PRECISION = click.option(
    "--precision",
    default="auto",
    show_default=True,
    metavar="NAMES",
    help="What torch variants run in, with commas between: fp32, fp16, bf16, autocast-fp16, autocast-bf16, "
    "or auto: what the device usually runs.",
)
_ENGINE = click.option(
    "--engine",
    "engines",
    type=_TEXT,
    multiple=True,
    metavar="NAME",
    help="What runs the graphs: onnxruntime, openvino; repeatable.  [default: onnxruntime]",
)
_WITHIN = click.option(
    "--within",
    type=_TEXT,
    default="strict",
    show_default=True,
    metavar="LIMITS",
    help="strict, card, or a TOML file with limits in place of strict ones.",
)
_QUICK = click.option("--quick", is_flag=True, help="A glance: 10 runs.")
_FULL = click.option("--full", is_flag=True, help="Batches 1, 2, 4, 8 and 16, 100 runs each.")
_BUDGET = click.option(
    "--budget",
    type=float,
    metavar="SECONDS",
    help="Longest time a variant and batch may take.  [default: 60]",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")


def _measuring(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of all that judges and times."""
    for option in (_BUDGET, _FULL, _QUICK, _ENGINE, _WITHIN, _PRECISION, _DEVICE, _OFFLINE):
        command = option(command)
    return command


class _Commands(click.Group):
    """A group that turns a user's errors into one line and an exit status."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if not args:
            return super().make_context(info_name, args, parent, **extra)
        with _sentences():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        signal.signal(signal.SIGTERM, _interrupt)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it
            signal.signal(signal.SIGHUP, _interrupt)
        with _sentences():
            return super().invoke(ctx)


@contextlib.contextmanager
def _sentences() -> Iterator[None]:
    """Turn a user's errors into one line and an exit status."""
    try:
        yield
    except VconvError as error:
        _exit_with(error)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "vconv"
        _exit_with(
            VconvError(
                f"wrong use of {command}",
                got=error.format_message(),
                expected=f"what `{command} --help` shows",
                fix="mend the command and run it again",
            )
        )
    except OSError as error:
        from vconv.convert.room import refusal

        sentence = refusal(error)
        if sentence is None:
            raise
        _exit_with(sentence)
    except KeyboardInterrupt:
        click.echo("interrupted: nothing half-made is left", err=True)
        sys.exit(130)


def _exit_with(error: VconvError) -> NoReturn:
    click.echo(f"error: {error}", err=True)
    sys.exit(error.exit_status)


def _interrupt(number: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def _progress() -> Callable[[str], None]:
    start = time.perf_counter()

    def say(line: str) -> None:
        click.echo(f"{time.perf_counter() - start:6.1f} s  {line}", err=True)

    return say


def _names(text: str) -> list[str]:
    """Take apart names with commas between."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _show(document: Any, draw: Callable[[Any], None], as_json: bool) -> None:
    """Print a result: as JSON, or drawn for a terminal."""
    if as_json:
        click.echo(json.dumps(document, indent=2, allow_nan=False))
    else:
        draw(document)


def _exit_by(document: Mapping[str, Any]) -> None:
    """Exit with 1 where a validation did not pass."""
    if not document["passed"]:
        sys.exit(1)


_HELP = """Convert, export and validate vision transformers for Ascend NPUs.

\b
vconv export dinov3-vits16 --weights FOLDER
vconv validate artifacts/dinov3-vits16 --weights FOLDER
"""


@click.group("vconv", cls=_Commands, help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="vconv")
def main() -> None:
    """Run the command that is named."""


@main.command("list")
@_JSON
def list_systems(as_json: bool) -> None:
    """List the systems that vconv knows."""
    from vconv import display

    rows = [
        {"name": system.name, "hub_id": system.hub_id, "library": system.library, "licence": system.licence}
        for system in catalog.SYSTEMS.values()
    ]
    _show(rows, display.systems, as_json)


@main.command()
@click.argument("path", type=_TEXT)
@_JSON
def info(path: str, as_json: bool) -> None:
    """Show what an artifact is."""
    from vconv import display, workflows

    _show(workflows.describe(path), display.artifact, as_json)


@main.command()
@click.argument("name")
@click.option(
    "--weights",
    type=_TEXT,
    metavar="WHERE",
    help="A folder, a file, hub:REPOSITORY[@REVISION], or synthetic[:SEED].  "
    "[default: the system's own repository]",
)
@_HUB
@_OFFLINE
@click.option("--out", type=_TEXT, help="The artifact's own folder.  [default: artifacts/NAME]")
@click.option("--force", is_flag=True, help="Replace an artifact that is there.")
@click.option("--batch", default=1, show_default=True, metavar="N", help="Batch of the static NPU graph.")
@click.option(
    "--opset", default=18, show_default=True, metavar="N", help="ONNX opset of the dynamic graph, 18 to 22."
)
@click.option(
    "--images",
    type=_TEXT,
    multiple=True,
    metavar="WHERE",
    help="A photograph, or a folder of them, to record and check on; repeatable.",
)
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
@_JSON
def export(as_json: bool, golden: str, **options: Any) -> None:
    """Make the artifact of the system NAME: patched checkpoint, ONNX graphs, recorded reference."""
    from vconv import display, workflows

    document = workflows.export(golden=golden == "record", say=_progress(), **options)
    _show(document, display.exported, as_json)


@main.command()
@click.argument("path", type=_TEXT)
@click.option(
    "--weights",
    type=_TEXT,
    metavar="WHERE",
    help="The original's weights.  [default: where they came from, or else the recorded outputs]",
)
@_HUB
@click.option(
    "--images",
    type=_TEXT,
    multiple=True,
    metavar="WHERE",
    help="A photograph, or a folder of them, to judge on; repeatable.",
)
@_measuring
@click.option(
    "--seed", default=0, show_default=True, help="Seed of made-up images, where none were recorded."
)
@_JSON
def validate(as_json: bool, precision: str, engines: tuple[str, ...], **options: Any) -> None:
    """Judge every variant of the artifact PATH against the original, and time it."""
    from vconv import display, judging

    document = judging.validate(
        precision=_names(precision), engines=engines or None, say=_progress(), **options
    )
    _show(document, display.validated, as_json)
    _exit_by(document)


@main.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=_TEXT)
@_measuring
@_JSON
def compare(as_json: bool, precision: str, engines: tuple[str, ...], **options: Any) -> None:
    """Judge and time the variants of the artifacts PATH... side by side, in one table."""
    from vconv import display, judging

    document = judging.compare(
        precision=_names(precision), engines=engines or None, say=_progress(), **options
    )
    _show(document, display.compared, as_json)
    _exit_by(document)


@main.command()
@click.argument("path", required=False, type=_TEXT)
@click.option(
    "--weights",
    type=_TEXT,
    metavar="WHERE",
    help="The original's weights.  [default: where they came from]",
)
@_HUB
@_OFFLINE
@_WITHIN
@_ENGINE
@click.option(
    "--clean-runs",
    default=6,
    show_default=True,
    metavar="N",
    help="How often each artifact is validated with nothing wrong, on other images each time.",
)
@_JSON
def selftest(as_json: bool, engines: tuple[str, ...], **options: Any) -> None:
    """Show that validation fails known faults, made one at a time in a copy of the artifact PATH.

    Without PATH, in miniatures of every system.
    """
    from vconv import display, selftesting

    document = selftesting.selftest(engines=engines or None, say=_progress(), **options)
    _show(document, display.selftested, as_json)
    _exit_by(document)


@main.command()
@click.argument("path", type=_TEXT)
@click.option(
    "--variant",
    type=_TEXT,
    default="onnx-fp32",
    show_default=True,
    metavar="NAME",
    help="onnx-fp32, onnx-fp32-npu, patched-torch-PRECISION or original-torch-PRECISION.",
)
@click.option(
    "--weights",
    type=_TEXT,
    metavar="WHERE",
    help="The original's weights.  [default: where they came from; without them a graph is held against the "
    "patched model]",
)
@_HUB
@_OFFLINE
@_DEVICE
@click.option(
    "--engine",
    type=_TEXT,
    default="onnxruntime",
    show_default=True,
    metavar="NAME",
    help="What runs a graph: onnxruntime or openvino.",
)
@_WITHIN
@click.option(
    "--images",
    type=_TEXT,
    multiple=True,
    metavar="WHERE",
    help="A photograph, or a folder of them, to look at; repeatable.",
)
@click.option(
    "--seed", default=0, show_default=True, help="Seed of made-up images, where none were recorded."
)
@_JSON
def bisect(as_json: bool, **options: Any) -> None:
    """Find where a variant of the artifact PATH departs from its reference: the block, and its operator."""
    from vconv import display, localising

    document = localising.bisect(say=_progress(), **options)
    _show(document, display.bisected, as_json)
    _exit_by(document)


@main.command()
@click.argument("path", type=_TEXT)
@click.option(
    "--weights",
    type=_TEXT,
    metavar="WHERE",
    help="Your copy of the original's weights.  [default: where they came from]",
)
@_HUB
@_OFFLINE
@_JSON
def fill(as_json: bool, **options: Any) -> None:
    """Complete the artifact PATH, which was exported without weights, from your own copy of them."""
    from vconv import display, workflows

    _show(workflows.fill(say=_progress(), **options), display.filled, as_json)
