"""``optimum-cli export onnx``, in a virtual environment that the user names: it pins older libraries."""

from __future__ import annotations

import subprocess
from pathlib import Path

from vconv.convert.exporters.base import Exporter, ExporterError, Job

PROGRAM = "bin/optimum-cli"
HOW = (
    "make one with `python -m venv FOLDER` and `FOLDER/bin/pip install optimum-onnx`, and name it as "
    "--exporters optimum=FOLDER"
)
"""The remedy for an environment without it."""
TASK, CLASSES_TASK = "feature-extraction", "image-classification"


def program(environment: Path) -> Path:
    """Return the path of optimum-cli in a virtual environment."""
    return environment / PROGRAM


def export(job: Job) -> Path:
    """Export with optimum-cli, in its default configuration.

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
    task = CLASSES_TASK if job.network.head == "classifier" else TASK
    options = ["--model", str(job.folder.absolute()), "--task", task, "--no-post-process"]
    command = [str(program(job.environment)), "export", "onnx", *options, str(job.target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    graphs = sorted(job.target.glob("*.onnx"))
    if not graphs:
        raise ExporterError(
            "optimum-cli wrote no graph",
            got=f"{(done.stderr.strip().splitlines() or ['no message'])[-1]:.200}",
            expected="a graph",
            fix="leave optimum out of --exporters",
        )
    return graphs[0]


EXPORTER = Exporter("optimum", export, ("transformers",), separate=True)
