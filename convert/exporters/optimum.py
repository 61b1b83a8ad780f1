"""``optimum-cli export onnx``, in a virtual environment that the user names: it pins older libraries."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from vconv.convert.architectures.base import CLASSIFIER
from vconv.convert.exporters.base import Exporter, ExporterError, Job

PROGRAM = "bin/optimum-cli"
HOW = (
    "make one with `python -m venv FOLDER` and `FOLDER/bin/pip install 'optimum-onnx[onnxruntime]' pillow`, "
    "and name it as --exporters optimum=FOLDER"
)
"""The remedy for an environment without it."""
TASK, CLASSES_TASK = "feature-extraction", "image-classification"
_UNKNOWN = re.compile(
    r"custom or unsupported architecture|does not recognize this architecture|[Uu]nrecognized model"
    r"|model type .* is not supported|not supported yet"
)
"""Words by which optimum-cli, or the transformers under it, says that it does not know a model."""
_PYTHONS = ("PYTHONPATH", "PYTHONHOME")
"""Environment variables that would put this environment's libraries in place of the separate one's."""
_LONGEST = 300
"""Characters of optimum-cli's last line that are shown."""


class UnknownModelError(ExporterError):
    """The optimum-cli of an environment does not know a model's architecture."""


def program(environment: Path) -> Path:
    """Return the path of optimum-cli in a virtual environment."""
    return environment / PROGRAM


def run(environment: Path, folder: Path, target: Path, classes: bool) -> Path:
    """Run optimum-cli in its default configuration; return the graph.

    Args:
        environment: the folder of the virtual environment.
        folder: a folder that transformers loads.
        target: an empty folder for the graph.
        classes: whether the model is exported as a classifier.

    Raises:
        UnknownModelError: optimum-cli, or the transformers under it, does not know the model.
        ExporterError: it wrote no graph for another reason.
    """
    options = ["--model", str(folder.absolute()), "--task", CLASSES_TASK if classes else TASK]
    command = [str(program(environment)), "export", "onnx", *options, "--no-post-process", str(target)]
    surroundings = {name: value for name, value in os.environ.items() if name not in _PYTHONS}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=surroundings)
    graphs = sorted(target.glob("*.onnx"))
    if graphs:
        return graphs[0]
    fix = "leave optimum out of --exporters"
    if said := _UNKNOWN.search(done.stderr):
        raise UnknownModelError(
            "optimum-cli does not know the model", got=said[0], expected="a model that it knows", fix=fix
        )
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    raise ExporterError("optimum-cli wrote no graph", got=last[:_LONGEST], expected="a graph", fix=fix)


def export(job: Job) -> Path:
    """Export with optimum-cli: see :func:`run`.

    Raises:
        ExporterError: there is no optimum-cli in the environment, or it fails.
    """
    if job.environment is None or not program(job.environment).is_file():
        raise ExporterError(
            "optimum-cli needs a separate virtual environment",
            got="none" if job.environment is None else f"{job.environment} without {PROGRAM}",
            expected=f"a folder with {PROGRAM}",
            fix=HOW,
        )
    return run(job.environment, job.folder, job.target, classes=job.network.head == CLASSIFIER)


EXPORTER = Exporter("optimum", export, ("transformers",), separate=True)
