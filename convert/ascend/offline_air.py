"""Makes the offline model of an artifact from a graph of Ascend IR: the files for it, torchair, and ATC.

An artifact with ``--format air`` always has the script that calls torchair, because that script says how the
model was made. Where torchair is installed, export runs the same script, in a separate process.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import AbstractContextManager
from importlib.machinery import PathFinder
from importlib.resources import files
from pathlib import Path

from vconv.backends import TORCH_NPU, is_installed
from vconv.convert.ascend import atc, atc_script
from vconv.convert.ascend.atc import SCRIPT_FILE, CompileOrder
from vconv.convert.ascend.offline_model import compile_in
from vconv.errors import EngineError
from vconv.types import Say

TORCHAIR = "torchair"
_SHOWN = 600
"""Greatest number of characters of the script's last line in an error text."""


def installed() -> bool:
    """Return whether torchair is installed, of itself or inside torch_npu; neither is imported.

    Source: repository github.com/Ascend/pytorch, ``torch_npu/dynamo/__init__.py``: a torch_npu that was built
    with torchair has it as ``torch_npu.dynamo.torchair``.
    """
    if not is_installed(TORCH_NPU):
        return False
    host = PathFinder.find_spec(TORCH_NPU)
    places = host.submodule_search_locations if host else None
    return is_installed(TORCHAIR) or any(Path(place, "dynamo", TORCHAIR).is_dir() for place in places or ())


def write_scripts(folder: Path, order: CompileOrder, size: tuple[int, int], batch: int) -> None:
    """Add the scripts and settings of an offline model to an artifact.

    Args:
        folder: the artifact.
        order: the settings of the compilation.
        size: (height, width) of the images.
        batch: the batch of the static graph.
    """
    place, settings = folder / order.folder, order.settings()
    place.mkdir()
    (place / order.route.maker).write_text(maker())
    for name, text in settings.items():
        (place / name).write_text(text)
    path = place / SCRIPT_FILE
    path.write_text(atc_script.script(order.command(size, batch), [*settings], order.route))
    path.chmod(0o755)


def maker() -> str:
    """Return the text of the script that makes the graph of Ascend IR."""
    return (files("vconv.convert.ascend") / "templates" / "make_air.txt").read_text("utf-8")


def make(
    folder: Path,
    scratch: Path,
    order: CompileOrder,
    command: tuple[str, ...],
    manifest: AbstractContextManager[None],
    say: Say,
) -> None:
    """Make the graph of an artifact's offline model with torchair, if it is installed, and compile it.

    Args:
        folder: the artifact, complete but for its manifest and for this model.
        scratch: an empty folder on the same disk, as working folder for ATC.
        order: the settings of the compilation.
        command: the command of ATC.
        manifest: lets the artifact have its manifest, which the script reads, while this is open.
        say: receives progress messages.

    Raises:
        EngineError: torchair or ATC fails, or makes something that computes something else.
    """
    place, script = folder / order.folder, f"{order.folder}/{SCRIPT_FILE}"
    if not installed():
        say(
            f"{order.file} is not made, because torchair is not installed: run {script} on a machine with "
            "CANN and torch_npu"
        )
        return
    say(f"{order.folder}/{order.route.graph}: torchair's dynamo_export")
    with manifest:
        _run(place / order.route.maker, order, scratch)
    if atc.compiler() is None:
        say(f"{order.file} is not made, because atc is not on PATH: run {script} on a machine with CANN")
        return
    work = scratch / order.folder
    work.mkdir()
    for name in (order.route.graph, *order.settings()):
        (work / name).symlink_to(place / name)
    for name in compile_in(work, order, command, say):
        (work / name).rename(place / name)
    (place / order.route.graph).unlink()
    (place / SCRIPT_FILE).unlink()


def _run(script: Path, order: CompileOrder, scratch: Path) -> None:
    """Run the script with this Python, in a folder where its libraries may leave files.

    Raises:
        EngineError: it fails.
    """
    done = subprocess.run(
        [sys.executable, "-P", str(script)],
        cwd=scratch,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode or not (script.parent / order.route.graph).is_file():
        said = (done.stdout.strip().splitlines() or ["nothing was said"])[-1]
        raise EngineError(
            "torchair did not make the graph of the offline model",
            got=said.removeprefix("error: ").replace(" | ", "; ")[:_SHOWN],
            expected=f"{order.folder}/{order.route.graph}",
            fix="correct this error, or use --format om; without torchair, the export gives the scripts; "
            "no file was kept",
        )
